"""Targets of a run, and the summary that it reports at its end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.specs.base import Frozen
from service.specs.states import Reason


class Target(Frozen):
    """A value of a validation metric; the step and the time at which the run first reaches it are recorded."""

    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    value: float = Field(ge=0, le=1e6)

    def reached_by(self, value: float) -> bool:
        """Whether a value of the metric reaches the target: at most for a loss, at least for an accuracy."""
        return value <= self.value if self.metric.endswith("loss") else value >= self.value


class TargetHit(BaseModel):
    """When a run first reached its target."""

    model_config = ConfigDict(frozen=True)

    step: int
    wall_seconds: float


class Memory(BaseModel):
    """Memory use of a run, in bytes."""

    model_config = ConfigDict(frozen=True)

    optimizer_state_bytes: Annotated[int, Field(description="Size of all tensors in the optimizer's state.")]
    parameter_bytes: Annotated[int, Field(description="Size of the trained parameters.")]
    peak_bytes: Annotated[
        int | None,
        Field(
            description="Peak memory of the run, including data and evaluation. On a GPU: bytes allocated by torch. "
            "On a CPU: growth of the process's resident memory since the start of the run, including library code "
            "loaded on first use; null if the kernel does not report it."
        ),
    ]


class Summary(BaseModel):
    """Result of a run, stored with the job.

    `metrics` are measured with the last step's weights (`test_accuracy` is the default endpoint of comparisons),
    `best_*` with those of the best validation step. For a diverged run, they are the last values before it diverged.
    """

    model_config = ConfigDict(frozen=True)

    reason: Reason
    steps: int
    epochs: float
    train_seconds: Annotated[
        float, Field(description="Seconds of training steps, excluding evaluation and diagnostics.")
    ]
    total_seconds: Annotated[float, Field(description="Seconds from start to end of the run.")]
    parameters: Annotated[int, Field(description="Number of trained parameters.")]
    metrics: dict[str, float | None]
    best_step: int | None
    target: TargetHit | None
    message: str | None = None
    memory: Annotated[
        Memory | None, Field(description="Null for runs of older versions, which did not measure it.")
    ] = None


Environment = dict[str, Any]
"""Versions, device, host, git revision and data hash of a run; recorded, not validated."""
