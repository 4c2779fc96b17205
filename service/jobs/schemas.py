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
    """A training run to make, and how the service should treat it."""

    # FastAPI silences a warning only while it builds a body's validator at once.
    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]}, defer_build=False)

    tags: dict[TagKey, Label] = Field(
        default_factory=dict, max_length=32, description="Your own labels, to find jobs by."
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher runs first.")
    time_limit_seconds: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Wall-clock limit of the run, without what was lost; null: none.",
    )
    memory_limit_bytes: int | None = Field(
        None,
        ge=2**28,
        le=2**50,
        description="Memory of its processes; null: the worker's share for one job, which is also the most.",
        exclude_if=lambda limit: limit is None,  # or a request repeated across an upgrade would be another one
    )
    max_failures: int = Field(3, ge=1, le=100, description="Lost workers or child processes before the job fails.")

    @property
    def train_spec(self) -> TrainSpec:
        """What decides the result, without what only decides how the service treats the job."""
        return TrainSpec.model_validate({name: getattr(self, name) for name in TrainSpec.model_fields})


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
