"""Learning-rate schedules over the budget. Their functions: `workers.training.schedules`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from service.specs.base import Frozen, unfit
from service.specs.catalog.base import Choice, Fraction

SCHEDULES: dict[str, type[Schedule]] = {}


class ScheduleParams(Frozen):
    """Parameters of every schedule: a linear warm-up from 0."""

    warmup_steps: int = Field(0, ge=0, le=10**7, description="Steps over which the learning rate rises from 0.")


class Schedule(Choice):
    """A learning-rate schedule."""

    table: ClassVar[dict[str, Any]] = SCHEDULES
    params: ScheduleParams


class Constant(Schedule):
    """Constant learning rate."""

    title = "constant"
    name: Literal["constant"] = "constant"
    params: ScheduleParams = ScheduleParams()


class DecayParams(ScheduleParams):
    """Parameters of schedules that end at a fraction of the initial learning rate."""

    final_fraction: float = Field(
        0.0, ge=0, le=1, description="Final learning rate, as a fraction of the initial learning rate."
    )


class Cosine(Schedule):
    """Half a cosine period (Loshchilov and Hutter 2017)."""

    title = "half a cosine period down to `final_fraction` (Loshchilov and Hutter 2017)"
    name: Literal["cosine"] = "cosine"
    params: DecayParams = DecayParams()


class Linear(Schedule):
    """Linear decay."""

    title = "linear decay to `final_fraction`"
    name: Literal["linear"] = "linear"
    params: DecayParams = DecayParams()


class StepParams(ScheduleParams):
    """Parameters of `step`: the learning rate is multiplied by `factor` at each milestone."""

    milestones: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1, max_length=32)] = Field(
        (0.5, 0.75), description="Milestones, as increasing fractions of the budget."
    )
    factor: Fraction = 0.1

    @model_validator(mode="after")
    def _milestones_increase(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise unfit("milestones", "milestones must increase")
        return self


class Step(Schedule):
    """Stepwise decay."""

    title = "multiplied by `factor` at each milestone"
    name: Literal["step"] = "step"
    params: StepParams = StepParams()
