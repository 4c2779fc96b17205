"""Response bodies of jobs, and the request for an action on several."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.specs.bodies import Output
from service.specs.outcome import Summary
from service.specs.states import JobStatus, Reason


class Progress(Output):
    """How far a run is, in optimizer steps; `total_steps` is null until it is known, and for a budget in seconds."""

    step: int
    total_steps: int | None


class JobView(Output):
    """A job: what was asked for, where it stands, and what came of it."""

    id: UUID
    status: JobStatus
    reason: Reason | None
    message: str | None
    user: str
    spec: dict[str, Any] = Field(description="The resolved spec, every default made explicit.")
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    memory_limit_bytes: int | None
    max_failures: int
    attempt: int
    failures: int
    cancel_requested: bool
    retry_of: UUID | None
    worker: str | None
    progress: Progress
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    environment: dict[str, Any] | None
    summary: Summary | None


class JobCounts(Output):
    """How many jobs there are of each status."""

    counts: dict[JobStatus, int]


class ActionRequest(BaseModel):
    """The same for many jobs."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["cancel", "retry"]
    jobs: list[UUID] = Field(min_length=1, max_length=500)


class OutcomeView(Output):
    """What became of one of them."""

    job: UUID
    done: bool
    detail: str | None = Field(description="Why it was not done.")
    new_job: UUID | None = Field(description="That a retry made, or had made before.")


class ActionOutcomes(Output):
    """One for each of the jobs, in the order they were named."""

    outcomes: list[OutcomeView]


class EventView(Output):
    """What happened to a job: a change of its status, or a note about the attempt that was under way."""

    seq: int
    at: datetime
    attempt: int
    status: JobStatus
    reason: Reason | None
    message: str | None


class History(Output):
    """Everything that happened to a job, in order."""

    events: list[EventView]


class DryRun(Output):
    """What a submission would become."""

    spec: dict[str, Any]
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    memory_limit_bytes: int | None
    max_failures: int
