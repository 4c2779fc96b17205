"""Builders of the catalog's learning-rate schedules: factors of the initial learning rate over the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from service.specs.catalog.schedules import DecayParams, Schedule, ScheduleParams, StepParams
from workers.training.progress import Progress


def build(choice: Schedule, optimizer: Optimizer, progress: Progress) -> LambdaLR | None:
    """The scheduler of `optimizer`, to be stepped after `progress.count_step`; None for a constant learning rate."""
    if choice.name == "constant" and choice.params.warmup_steps == 0:
        return None
    return LambdaLR(optimizer, lambda _: factor(choice, progress))


def factor(choice: Schedule, progress: Progress) -> float:
    """The factor of the learning rate for the next step.

    Step k of a warm-up of w steps has factor k / w, so that no step has learning rate 0. The schedule covers the budget
    after the warm-up; the milestones of `step` are fractions of the whole budget.
    """
    warmup_steps = choice.params.warmup_steps
    if progress.steps < warmup_steps:
        return (progress.steps + 1) / float(warmup_steps)
    return BUILDERS[choice.name](choice.params, progress)


def _constant(params: ScheduleParams, progress: Progress) -> float:
    return 1.0


def _cosine(params: DecayParams, progress: Progress) -> float:
    cosine = (1 + math.cos(math.pi * progress.share_after_warmup)) / 2
    return params.final_fraction + (1 - params.final_fraction) * cosine


def _linear(params: DecayParams, progress: Progress) -> float:
    return 1 + (params.final_fraction - 1) * progress.share_after_warmup


def _step(params: StepParams, progress: Progress) -> float:
    return params.factor ** sum(progress.used >= milestone * progress.budget for milestone in params.milestones)


BUILDERS: dict[str, Callable[[Any, Progress], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
}
