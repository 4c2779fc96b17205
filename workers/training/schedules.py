"""Learning-rate schedules by their catalog names, as factors of the starting rate per step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from service.catalog import DecayParams, Schedule, ScheduleParams, StepParams


def build(choice: Schedule, optimizer: Optimizer, total_steps: int) -> LambdaLR | None:
    """The scheduler of `optimizer`, to be stepped after each of `total_steps`; None if the rate never changes."""
    params: Any = choice.params  # type: ignore[attr-defined]  # every choice has a name and parameters
    if choice.name == "constant" and params.warmup_steps == 0:  # type: ignore[attr-defined]
        return None
    return LambdaLR(optimizer, lambda done: factor(choice, done, total_steps))


def factor(choice: Schedule, done: int, total_steps: int) -> float:
    """What the learning rate is multiplied by in the step after `done` ones, of `total_steps`.

    Step k of a warm-up of w steps has k / w, so that no step is wasted at 0. The shape runs over what is left; the
    milestones of `step` are shares of the whole budget.
    """
    params: Any = choice.params  # type: ignore[attr-defined]
    if done < params.warmup_steps:
        return (done + 1) / float(params.warmup_steps)
    return BUILDERS[choice.name](params, done, total_steps)  # type: ignore[attr-defined]


def _progress(params: ScheduleParams, done: int, total_steps: int) -> float:
    """Share of the steps after the warm-up that are done, in [0, 1]."""
    return min(1.0, (done - params.warmup_steps) / max(1, total_steps - params.warmup_steps))


def _constant(params: ScheduleParams, done: int, total_steps: int) -> float:
    return 1.0


def _cosine(params: DecayParams, done: int, total_steps: int) -> float:
    above = (1 + math.cos(math.pi * _progress(params, done, total_steps))) / 2
    return params.final_fraction + (1 - params.final_fraction) * above


def _linear(params: DecayParams, done: int, total_steps: int) -> float:
    return 1 + (params.final_fraction - 1) * _progress(params, done, total_steps)


def _step(params: StepParams, done: int, total_steps: int) -> float:
    return params.factor ** sum(done >= milestone * total_steps for milestone in params.milestones)


BUILDERS: dict[str, Callable[[Any, int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
}
