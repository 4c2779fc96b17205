"""The resolved spec of a training run, and the names of its diagnostics."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from service.specs.base import Frozen, unfit
from service.specs.catalog.base import Chosen, Seed
from service.specs.catalog.datasets import Dataset
from service.specs.catalog.models import Model
from service.specs.catalog.optimizers import Optimizer
from service.specs.catalog.schedules import Constant, Schedule
from service.specs.summary import Target
from service.specs.text import counted

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
"""Diagnostics recorded every `diagnostics_every_steps`: averages under these names, and per layer as `NAME/LAYER`.

`weight_correlation` is also measured at each validation. The metric `diagnostics_seconds` is their cumulative
time, which does not count as training time.
"""


class Budget(Frozen):
    """Training budget: exactly one of epochs, optimizer steps and seconds."""

    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the training records.")
    steps: int | None = Field(None, ge=1, le=10**9, description="Optimizer steps.")
    seconds: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Seconds of training, excluding evaluation and diagnostics; the step that reaches the limit is the "
        "last. The number of steps depends on the speed of the machine, so the run is not bit-reproducible.",
        exclude_if=lambda seconds: seconds is None,  # so that specs stored before the field keep their setting
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.epochs, self.steps, self.seconds].count(None) != 2:
            raise ValueError("give exactly one of epochs, steps and seconds")
        return self

    def steps_on(self, records: int | None, batch_size: int) -> int | None:
        """Optimizer steps of the budget; None for seconds, and for epochs of an unknown number of records."""
        if self.epochs is None or records is None:
            return self.steps
        return self.epochs * -(-records // batch_size)


class TaskSpec(Frozen):
    """A training task: data set, model, schedule and budget, without optimizer and seed."""

    dataset: Chosen[Dataset]
    model: Chosen[Model]
    schedule: Chosen[Schedule] = Constant()
    budget: Budget
    batch_size: int = Field(
        64, ge=1, le=1_048_576, description="Records per step; the last batch of an epoch may be smaller."
    )
    gradient_clip: float | None = Field(
        None, gt=0, le=1e6, description="Maximum global L2 norm of the gradients; null: no clipping."
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` uses a GPU if the worker has one.")
    target: Target | None = None
    eval_every_steps: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between validations; null: an epoch, or a tenth of the steps of a shorter budget.",
    )
    log_every_steps: int = Field(10, ge=1, le=10**9, description="Steps between points of the training metrics.")
    diagnostics_every_steps: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between diagnostics; null: none. They are computed from weights and gradients before the "
        "optimizer's step: weight correlation, effective rank, temperature, energy and entropy of the velocities, "
        "largest eigenvalue of the collision matrix (also multiplied by KO's gamma) and KO's share of collided pairs, "
        "averaged over layers as NAME and per layer as NAME/LAYER. They do not change results and do not count as "
        "training time. On a CPU, diagnostics every 50 steps cost less than 2 % of the training time of a ResNet or "
        "transformer and 10 to 20 % of that of the digits MLP.",
    )

    def cut_warmup(self, steps: int | None, run: str = "the run") -> str | None:
        """A warning that a run of `steps` ends within the warm-up; None if it does not, or if `steps` is unknown."""
        warmup = self.schedule.params.warmup_steps
        if steps is None or steps >= warmup:
            return None
        return (
            f"the warm-up takes {counted(warmup, 'step')}, but {run} ends after {steps:,}, when the learning rate has "
            f"risen to {100 * steps / warmup:.2g} % of its value"
        )


class TrainSpec(TaskSpec):
    """Everything that determines the result of one training run, with all defaults filled in."""

    optimizer: Chosen[Optimizer]
    seed: Seed = Field(
        0,
        description="Determines initial weights, data order, augmentation, dropout and the random numbers of the "
        "optimizer (collisions, noise).",
    )
    stop_at_target: bool = Field(False, description="End the run when the target is reached.")
    evaluate_test: bool = Field(True, description="If false, the test set is never read; used for tuning.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dataset.kind not in (self.model.reads, *self.model.also_reads):
            raise unfit(
                "model",
                f"model '{self.model.name}' reads {self._readable}, but data set '{self.dataset.name}' "
                f"has {self.dataset.kind}s",
            )
        self._check_optimizer()
        if self.precision == "fp16" and self.device == "cpu":
            raise unfit(
                "precision", "precision fp16 requires a GPU; choose device cuda or auto, or precision fp32 or bf16"
            )
        if self.stop_at_target and self.target is None:
            raise unfit("stop_at_target", "stop_at_target requires a target")
        if self.budget.seconds is not None and getattr(self.optimizer.params, "fade", "none") != "none":
            raise unfit(
                "optimizer", "fade requires a budget in epochs or steps; change the budget or set fade to 'none'"
            )
        return self

    def _check_optimizer(self) -> None:
        """Raise PydanticCustomError if precision, device, budget or schedule do not fit what the optimizer needs."""
        name, needs = self.optimizer.name, self.optimizer.loop_needs
        if "create_graph" in needs and self.model.name in ("lstm", "transformer") and self.device != "cpu":
            raise unfit(
                "device",
                f"{name} differentiates gradients, which torch cannot do for {self.model.name} on a GPU; choose cpu",
            )
        if self.precision == "fp16" and {"closure", "create_graph"}.intersection(needs):
            raise unfit(
                "precision", f"{name} cannot use the scaled losses of precision fp16; choose precision bf16 or fp32"
            )
        if self.budget.seconds is not None and "total_steps" in needs:
            raise unfit("budget", f"{name} needs to know its number of steps; give a budget in epochs or steps")
        is_scheduled = self.schedule.name != "constant" or self.schedule.params.warmup_steps
        if is_scheduled and "lr" not in type(self.optimizer.params).model_fields:
            raise unfit("schedule", f"{name} has no learning rate that a schedule could change; choose constant")

    @property
    def _readable(self) -> str:
        return " and ".join(f"{kind}s" for kind in (self.model.reads, *self.model.also_reads))

    @property
    def needs_cuda(self) -> bool:
        """Whether only a worker with a GPU can run this."""
        return self.device == "cuda" or self.precision == "fp16"
