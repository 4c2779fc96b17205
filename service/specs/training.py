"""The vocabulary of a job: its resolved spec, its states and the reasons it ends for, and what a run reports back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.specs.catalog.base import Chosen, Frozen, Seed, unfit
from service.specs.catalog.datasets import Dataset
from service.specs.catalog.models import Model
from service.specs.catalog.optimizers import Optimizer
from service.specs.catalog.schedules import Constant, Schedule

ENGINE_VERSION = 2
"""Raised by hand whenever the same spec trains to other numbers than before."""

DIAGNOSTICS = (
    "weight_correlation",
    "effective_rank",
    "temperature",
    "velocity_energy",
    "velocity_entropy",
    "lambda_max",
    "gamma_lambda_max",
    "collision_share",
)
"""What `diagnostics_every_steps` records, averaged under these names and of each layer as `NAME/LAYER`."""

METRICS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "best_test_accuracy",
    "lr",
    "grad_norm",
    "update_norm",
    "samples_per_second",
    *DIAGNOSTICS,
    "diagnostics_seconds",
)
"""Names that the training engine reports; `best_*` belong to the weights of the best validation step.

`weight_correlation` is measured at each validation, the other diagnostics on request; `diagnostics_seconds` is what
they have taken so far, which is no part of the training time.
"""


class JobStatus(StrEnum):
    """State of a job; `cancel_requested` is a flag beside it, not a state."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow this state."""
        return not TRANSITIONS[self]


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


class ComparisonStatus(StrEnum):
    """State of a comparison. `failed`: a run that it reports could not be made; the rest is answered all the same."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job ended, or went back to the queue."""

    COMPLETED = "completed"
    TARGET_REACHED = "target_reached"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    CHILD_LOST = "child_lost"
    CANCELLED = "cancelled"
    INVALID = "invalid"
    ERROR = "error"

    @property
    def status(self) -> JobStatus:
        """The final state that a job which ends for this reason is in."""
        if self in (Reason.COMPLETED, Reason.TARGET_REACHED):
            return JobStatus.SUCCEEDED
        return JobStatus.CANCELLED if self is Reason.CANCELLED else JobStatus.FAILED


class Budget(Frozen):
    """How long to train: a number of epochs, of optimizer steps or of seconds, one of the three."""

    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the training records.")
    steps: int | None = Field(None, ge=1, le=10**9, description="Optimizer steps.")
    seconds: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Seconds of training, without evaluation and diagnostics; the step that reaches them is the last. "
        "Where it ends depends on the machine's speed, so such a run does not repeat to the bit.",
        exclude_if=lambda seconds: seconds is None,  # or specs stored without the field would be of another setting
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.epochs, self.steps, self.seconds].count(None) != 2:
            raise ValueError("give either epochs or steps or seconds")
        return self


class Target(Frozen):
    """A validation metric to reach; when it was reached is recorded."""

    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    value: float = Field(ge=0, le=1e6)

    def reached_by(self, value: float) -> bool:
        """Whether `value` of the metric meets the target; a loss has to fall to it, an accuracy to rise to it."""
        return value <= self.value if self.metric.endswith("loss") else value >= self.value


class TaskSpec(Frozen):
    """What is trained on what, and for how long: a run without its optimizer and seed."""

    dataset: Chosen[Dataset]
    model: Chosen[Model]
    schedule: Chosen[Schedule] = Constant()
    budget: Budget
    batch_size: int = Field(64, ge=1, le=1_048_576, description="Records per step; the last batch may be short.")
    gradient_clip: float | None = Field(
        None, gt=0, le=1e6, description="Largest global L2 norm of the gradients; null: not clipped."
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU where the worker has one.")
    target: Target | None = None
    eval_every_steps: int | None = Field(
        None, ge=1, le=10**9, description="Steps between validations; null: at the end of every epoch."
    )
    log_every_steps: int = Field(10, ge=1, le=10**9, description="Steps between two points of the training metrics.")
    diagnostics_every_steps: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between two records of what weights and gradients say of the neurons, taken before the "
        "optimizer's step: weight correlation, effective rank, temperature, energy and entropy of the velocities, "
        "largest eigenvalue of the collision matrix (and times KO's gamma), KO's share of collided pairs; averaged, "
        "and of each layer as NAME/LAYER. They change no result and are no part of the training time; null: none. "
        "On a CPU, every 50 steps costs under 2 % of it for a ResNet or transformer, 10 to 20 % for the digits MLP.",
    )


class TrainSpec(TaskSpec):
    """Everything that decides the result of one training run, with every default made explicit."""

    optimizer: Chosen[Optimizer]
    seed: Seed = Field(0, description="Decides initial weights, data order, dropout and KO's collisions.")
    stop_at_target: bool = Field(False, description="End the run once the target is reached.")
    evaluate_test: bool = Field(True, description="False for tuning: the test set is never read.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dataset.kind not in (self.model.reads, *self.model.also_reads):
            raise unfit(
                "model",
                f"model '{self.model.name}' reads {self._readable}, but data set '{self.dataset.name}' "
                f"has {self.dataset.kind}s",
            )
        if self.precision == "fp16" and self.device == "cpu":
            raise unfit(
                "precision", "precision fp16 needs a GPU: choose device cuda or auto, or precision fp32 or bf16"
            )
        if self.stop_at_target and self.target is None:
            raise unfit("stop_at_target", "stop_at_target needs a target")
        if self.budget.seconds is not None and getattr(self.optimizer.params, "fade", "none") != "none":
            raise unfit(
                "optimizer", "fade needs a known number of steps: give the budget in epochs or steps, or fade 'none'"
            )
        return self

    @property
    def _readable(self) -> str:
        return " and ".join(f"{kind}s" for kind in (self.model.reads, *self.model.also_reads))

    @property
    def needs_cuda(self) -> bool:
        """Whether only a worker with a GPU can run this."""
        return self.device == "cuda" or self.precision == "fp16"


class TargetHit(BaseModel):
    """When a run first met its target."""

    model_config = ConfigDict(frozen=True)

    step: int
    wall_seconds: float


class Memory(BaseModel):
    """What a run kept in memory, in bytes."""

    model_config = ConfigDict(frozen=True)

    optimizer_state_bytes: Annotated[int, Field(description="Bytes of all tensors in the optimizer's state.")]
    parameter_bytes: Annotated[int, Field(description="Bytes of the trained parameters.")]
    peak_bytes: Annotated[
        int | None,
        Field(
            description="The most that the run took, data and evaluation included. On a GPU: bytes that torch had "
            "allocated there. On the CPU: growth of the process's resident memory since the start of the run, which "
            "includes library code as it is first used; null where the kernel does not tell."
        ),
    ]


class Summary(BaseModel):
    """What a run answers at its end; stored with the job.

    `metrics` are those of the last step's weights (`test_accuracy` is the primary endpoint) and `best_*` those of the
    best validation step. A diverged run has the values it had before it diverged.
    """

    model_config = ConfigDict(frozen=True)

    reason: Reason
    steps: int
    epochs: float
    train_seconds: Annotated[float, Field(description="Seconds of training steps, without evaluation and diagnostics.")]
    total_seconds: Annotated[float, Field(description="Seconds from the first to the last line of the run.")]
    parameters: Annotated[int, Field(description="Number of trained parameters.")]
    metrics: dict[str, float | None]
    best_step: int | None
    target: TargetHit | None
    message: str | None = None
    memory: Annotated[Memory | None, Field(description="Null for runs of versions that did not measure it.")] = None


Environment = dict[str, Any]
"""Versions, device, host, git revision and data hash of a run; recorded, not validated."""
