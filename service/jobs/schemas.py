"""Response bodies of jobs, and the request for an action on several."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field

from service.specs.bodies import IdPart, Output
from service.specs.optimizer_family import optimizer_family
from service.specs.states import JobStatus, Reason
from service.specs.summary import Summary

OPTIMIZER_LABEL = "Label of the optimizer in tables, with the form and the base of KO, such as `ko soft (adam)`."


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
    # With defaults, so that answers of an API without these fields are valid, too.
    name: str | None = None
    note: str | None = Field(None, description="Note of its owner.")
    archived_at: datetime | None = Field(None, description="Since when it is kept out of lists and boards.")

    @computed_field(description=OPTIMIZER_LABEL)  # type: ignore[prop-decorator]  # as pydantic's documentation says
    @property
    def optimizer_label(self) -> str:
        """Computed from the spec, so that answers of an API without this field are valid, too."""
        return optimizer_family(self.spec["optimizer"])


class JobCounts(Output):
    """Number of jobs by status."""

    counts: dict[JobStatus, int]


class ActionRequest(BaseModel):
    """An action on several jobs."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["cancel", "retry"]
    jobs: list[IdPart] = Field(min_length=1, max_length=500)


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


class FittedModel(Output):
    """A model of a library, as it is constructed for the data."""

    parameters: int = Field(
        description="Number of parameters. For models that are constructed for the size of the images, the number at "
        "the size that they were published for."
    )
    least_memory_bytes: int = Field(
        description="Memory that weights, gradients and the optimizer's state take; activations come in addition."
    )
    smallest_side: int = Field(description="Smallest height and width of images that it takes, in pixels.")
    stem: str | None = Field(description="How its first layer differs from the published one; null: it does not.")
    head: str | None = Field(description="How its last layer differs from the published one; null: it does not.")


class DryRun(Output):
    """The job that the request would create."""

    spec: dict[str, Any]
    warnings: list[str] = Field([], description="What is valid, but probably not intended; in sentences.")
    model: FittedModel | None = Field(None, description="A model of a library as it is fitted; null for others.")
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    memory_limit_bytes: int | None
    max_failures: int
