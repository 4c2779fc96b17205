"""Runs as the analysis sees them: jobs with their results, and what they recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from service.comparisons.design.plan import Cell
from service.comparisons.design.results import Result
from service.specs.states import JobStatus
from service.specs.summary import TargetHit


@dataclass(frozen=True, kw_only=True)
class Run:
    """The job of one seed. `hit`: when it first met the target; None for a miss."""

    job: UUID
    result: Result
    hit: TargetHit | None
    environment: Mapping[str, Any]
    finished_at: datetime | None

    @property
    def counts(self) -> bool:
        """Whether the run enters the statistics: it diverged, or succeeded with a value of the endpoint."""
        return self.result.diverged or (self.result.status is JobStatus.SUCCEEDED and self.result.value is not None)


@dataclass(frozen=True, kw_only=True)
class StoredRun(Run):
    """A job that `GET /v1/compare` matched; `spec` is resolved and lacks the seed."""

    spec: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True)
class CellRun(Run):
    """The job of a planned cell. Times in seconds, memory in bytes; None: not measured, or not yet."""

    cell: Cell
    user: str
    is_reused: bool
    message: str | None
    train_seconds: float | None
    total_seconds: float | None
    steps: int | None
    parameters: int | None
    memory: Mapping[str, Any]
    is_shared: bool
    """Whether its worker runs more jobs at once than it has devices."""
