"""Imports the names of `kotrain.__all__`; `kotrain` imports this module when one of them is used."""

from kotrain.client import Client
from kotrain.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidAddress,
    InvalidRequest,
    InvalidValue,
    KotrainError,
    NotFound,
    NotRunning,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
    WaitTimeout,
)
from service.comparisons.answers import CompareAnswer, ComparisonAnswer, ComparisonDryRun
from service.comparisons.boards import Leaderboard
from service.comparisons.design.requests import ComparisonRequest
from service.jobs.requests import JobRequest
from service.jobs.schemas import DryRun, JobView
from service.metrics.schemas import Metrics
from service.specs.bodies import Catalog, ModelDetail, ModelLibraryDetail, OptimizerDetail
from service.specs.states import ComparisonStatus, JobStatus, Reason
from service.specs.summary import Summary

__all__ = [
    "ApiError",
    "Catalog",
    "Client",
    "CompareAnswer",
    "ComparisonAnswer",
    "ComparisonDryRun",
    "ComparisonRequest",
    "ComparisonStatus",
    "Conflict",
    "ConnectionFailed",
    "DryRun",
    "Forbidden",
    "InvalidAddress",
    "InvalidRequest",
    "InvalidValue",
    "JobRequest",
    "JobStatus",
    "JobView",
    "KotrainError",
    "Leaderboard",
    "Metrics",
    "ModelDetail",
    "ModelLibraryDetail",
    "NotFound",
    "NotRunning",
    "OptimizerDetail",
    "Reason",
    "Summary",
    "Unauthorized",
    "Unavailable",
    "UnexpectedResponse",
    "WaitTimeout",
]
