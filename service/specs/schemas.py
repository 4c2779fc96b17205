"""Request and response bodies. Output fields have no defaults, so that nothing is left out by accident."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.specs.patterns import LABEL, TAG_KEY
from service.specs.training import JobStatus, Reason, Summary, TrainSpec

Label = Annotated[str, Field(pattern=LABEL)]
TagKey = Annotated[str, Field(pattern=TAG_KEY)]

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


PROBLEM_EXAMPLE: JsonDict = {
    "type": "https://kotrain.invalid/problems/invalid",
    "title": "The request is not valid",
    "status": 422,
    "detail": "/optimizer/params/lr: input should be greater than 0",
    "instance": "/v1/jobs",
    "errors": [{"pointer": "/optimizer/params/lr", "detail": "input should be greater than 0"}],
}


class JobRequest(TrainSpec):
    """A training run to make, and how the service should treat it."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

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


class Output(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(from_attributes=True)


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


Item = TypeVar("Item")


class Page(Output, Generic[Item]):
    """Some of a list, newest first; `next` goes into `after` to read on."""

    data: list[Item]
    has_more: bool
    next: str | None


class CurveView(Output):
    """One metric's points by step; values that are not finite are null."""

    steps: list[int]
    values: list[float | None]
    wall_seconds: list[float]


class Metrics(Output):
    """The curves of one job."""

    metrics: dict[str, CurveView]


class CatalogEntry(Output):
    """Something that a job can name."""

    name: str
    title: str
    params: dict[str, Any] = Field(description="JSON Schema of the parameters.")


class DatasetEntry(CatalogEntry):
    """A data set that a job can name."""

    kind: str
    classes: int
    present: bool = Field(description="Whether its files lie in the data folder.")
    fetch: str | None = Field(description="The command that downloads it, where it is not present.")


class ModelEntry(CatalogEntry):
    """A model that a job can name."""

    reads: str = Field(description="The kind of data that it is for: image, text or table.")
    also_reads: list[str] = Field(description="Other kinds that it reads as well.")


class OptimizerEntry(CatalogEntry):
    """An optimizer that a job can name."""

    colour: int = Field(description="Its own, from 0 to 6; what a comparison draws it in is in its `looks`.")


class Catalog(Output):
    """Everything that a job can name, with JSON Schemas of the parameters."""

    datasets: list[DatasetEntry]
    models: list[ModelEntry]
    optimizers: list[OptimizerEntry]
    schedules: list[CatalogEntry]


class Health(Output):
    """Whether a part works: `ok`, `degraded` (works, but something is away) or `down`."""

    status: str
    database: str
    broker: str


class ProblemField(Output):
    """One thing that is wrong with a request."""

    pointer: str
    detail: str


class Problem(Output):
    """An error (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM_EXAMPLE]})

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemField]
