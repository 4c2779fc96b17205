"""The Python SDK and the command line. Neither needs torch or a database."""

from typing import NoReturn

try:
    from kotrain.client import Client
    from kotrain.errors import (
        ApiError,
        Conflict,
        ConnectionFailed,
        Forbidden,
        InvalidRequest,
        KotrainError,
        NotFound,
        NotRunning,
        Unauthorized,
        Unavailable,
        WaitTimeout,
    )
    from service.comparisons.answers import CompareAnswer, ComparisonAnswer, ComparisonDryRun, Leaderboard
    from service.comparisons.design.requests import ComparisonRequest
    from service.jobs.requests import JobRequest
    from service.jobs.schemas import DryRun, JobView
    from service.metrics.schemas import Metrics
    from service.specs.bodies import Catalog
    from service.specs.outcome import Summary
    from service.specs.states import ComparisonStatus, JobStatus, Reason
except ModuleNotFoundError as _error:
    # `pip install kotrain` installs no dependencies: the console script must still start, to name the extra to install.
    _missing = _error.name

    def __getattr__(name: str) -> NoReturn:
        if name not in __all__:
            raise AttributeError(name)
        raise ImportError(f"kotrain.{name} needs the package {_missing}: pip install 'kotrain[sdk]'")


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
    "InvalidRequest",
    "JobRequest",
    "JobStatus",
    "JobView",
    "KotrainError",
    "Leaderboard",
    "Metrics",
    "NotFound",
    "NotRunning",
    "Reason",
    "Summary",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
]
