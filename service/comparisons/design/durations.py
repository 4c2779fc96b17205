"""Device time of a plan's runs, from estimates of one run."""

from __future__ import annotations

from collections.abc import Mapping

from service.comparisons.answers import Estimate
from service.comparisons.design.plan import Cell, Plan

Estimates = Mapping[tuple[int, int], Estimate]
"""(task, optimizer) -> duration of one run with the whole budget."""


def cell_seconds(plan: Plan, estimates: Estimates, cell: Cell) -> float | None:
    """Estimated seconds of one cell."""
    whole = estimates[cell.task, cell.optimizer].seconds
    return None if whole is None else whole * (plan.rungs[cell.rung].share if cell.phase == "tuning" else 1.0)


def max_seconds(plan: Plan, estimates: Estimates) -> float | None:
    """Estimated seconds of all runs if every look is needed; None if a duration is unknown."""
    total = 0.0
    for task in range(len(plan.tasks)):
        for position, optimizer in enumerate(plan.optimizers):
            whole = estimates[task, position].seconds
            if whole is None:
                return None
            total += whole * len(plan.seeds)
            if optimizer.is_tuned:
                shares = sum(min(rung.trials, len(optimizer.trials)) * rung.share for rung in plan.rungs)
                total += whole * shares * len(plan.tuning_seeds)
    return total
