"""Request and response bodies of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.specs.bodies import Label, Output, TagKey
from service.specs.training import JobStatus, Reason, Summary, TrainSpec

JOB_EXAMPLE: JsonDict = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [256, 256]}},
    "optimizer": {"name": "ko", "params": {"base": "adam", "lr": 0.001, "collision": "soft", "gamma": 0.1}},
    "schedule": "cosine",
    "budget": {"epochs": 30},
    "batch_size": 64,
    "seed": 0,
    "target": {"metric": "val_accuracy", "value": 0.95},
    "tags": {"study": "first"},
}


class JobRequest(TrainSpec):
    """A training run, and its tags, priority and limits."""

    # FastAPI silences a warning only while it builds a body's validator at once.
    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]}, defer_build=False)

    tags: dict[TagKey, Label] = Field(
        default_factory=dict, max_length=32, description="Labels of your own, to filter jobs by."
    )
    priority: int = Field(0, ge=-100, le=100, description="Jobs of higher priority run first.")
    time_limit_seconds: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Wall-clock limit of the run, not counting lost attempts; null: no limit.",
    )
    memory_limit_bytes: int | None = Field(
        None,
        ge=2**28,
        le=2**50,
        description="Memory limit of its processes; null: the worker's share for one job, which is also the maximum.",
        exclude_if=lambda limit: limit is None,  # or a request repeated across an upgrade would be another one
    )
    max_failures: int = Field(
        3, ge=1, le=100, description="Number of lost workers or child processes after which the job fails."
    )

    @property
    def train_spec(self) -> TrainSpec:
        """What decides the result, without what only decides how the service treats the job."""
        return TrainSpec.model_validate({name: getattr(self, name) for name in TrainSpec.model_fields})


class Progress(Output):
    """Progress of a run, in optimizer steps; `total_steps` is null until known, and for a budget in seconds."""

    step: int
    total_steps: int | None


class JobView(Output):
    """A job: its request, state and result."""

    id: UUID
    status: JobStatus
    reason: Reason | None
    message: str | None
    user: str
    spec: dict[str, Any] = Field(description="Resolved spec, with all defaults filled in.")
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
    """Number of jobs by status."""

    counts: dict[JobStatus, int]


class ActionRequest(BaseModel):
    """An action on several jobs."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["cancel", "retry"]
    jobs: list[UUID] = Field(min_length=1, max_length=500)


class OutcomeView(Output):
    """Outcome of an action on one job."""

    job: UUID
    done: bool
    detail: str | None = Field(description="Why the action was refused; null if done.")
    new_job: UUID | None = Field(description="Job created by this or an earlier retry.")


class ActionOutcomes(Output):
    """One outcome per job, in the order of the request."""

    outcomes: list[OutcomeView]


class EventView(Output):
    """An event of a job: a change of its status, or a note about the current attempt."""

    seq: int
    at: datetime
    attempt: int
    status: JobStatus
    reason: Reason | None
    message: str | None


class History(Output):
    """All events of a job, oldest first."""

    events: list[EventView]


class DryRun(Output):
    """The job that the request would create."""

    spec: dict[str, Any]
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    memory_limit_bytes: int | None
    max_failures: int
