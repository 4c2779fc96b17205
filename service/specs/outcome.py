"""Targets of a run, and the summary that it reports at its end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.specs.base import Frozen
from service.specs.states import Reason


class Target(Frozen):
    """A validation metric to reach; when it was reached is recorded."""

    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    value: float = Field(ge=0, le=1e6)

    def reached_by(self, value: float) -> bool:
        """Whether `value` of the metric meets the target; a loss has to fall to it, an accuracy to rise to it."""
        return value <= self.value if self.metric.endswith("loss") else value >= self.value


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
