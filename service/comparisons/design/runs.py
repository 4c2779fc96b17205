"""A planned run and the job that carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from service.comparisons.design.plan import Cell
from service.comparisons.design.schedule import Result
from service.specs.training import TargetHit


@dataclass(frozen=True)
class CellRun:
    """A cell and the job that is it. Times in seconds, memory in bytes; None: not measured, or not yet."""

    cell: Cell
    job: UUID
    user: str
    is_reused: bool
    result: Result
    message: str | None
    train_seconds: float | None
    total_seconds: float | None
    steps: int | None
    parameters: int | None
    memory: Mapping[str, Any]
    hit: TargetHit | None
    """When it first met the task's target."""
    environment: Mapping[str, Any]
    finished_at: datetime | None
    is_shared: bool
    """Whether its worker runs more jobs at once than it has devices."""
