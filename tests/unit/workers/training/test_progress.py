"""Progress through a budget of epochs, steps or seconds."""

from __future__ import annotations

import pytest

from service.specs.training import Budget
from workers.training.progress import Progress


@pytest.mark.parametrize(
    ("budget", "total_steps", "amount"),
    [(Budget(epochs=3), 39, 39), (Budget(steps=20), 20, 20), (Budget(seconds=2.5), None, 2.5)],
)
def test_counts_budget_in_its_unit(budget: Budget, total_steps: int | None, amount: float) -> None:
    progress = Progress.from_budget(budget, steps_per_epoch=13, warmup_steps=0)
    assert (progress.total_steps, progress.budget) == (total_steps, amount)
    assert (progress.steps, progress.used, progress.is_over) == (0, 0, False)


def test_budget_of_steps_ends_with_last_step() -> None:
    progress = Progress.from_budget(Budget(steps=2), 13, 0)
    progress.count_step(1000.0)
    assert (progress.is_over, progress.share_after_warmup) == (False, 0.5)
    progress.count_step(1001.0)
    assert (progress.is_over, progress.share_after_warmup) == (True, 1)


def test_budget_of_seconds_ends_with_step_that_reaches_it() -> None:
    progress = Progress.from_budget(Budget(seconds=2), 13, 0)
    states = []
    for seconds in (0.5, 1.999, 2.0, 2.1):
        progress.count_step(seconds)
        states.append((progress.steps, progress.is_over, progress.share_after_warmup))
    assert states == [(1, False, 0.25), (2, False, 0.9995), (3, True, 1), (4, True, 1)]


@pytest.mark.parametrize(("budget", "shares"), [(Budget(steps=4), [0, 0, 0.5, 1]), (Budget(seconds=8), [0, 0, 0.2, 1])])
def test_share_excludes_warmup(budget: Budget, shares: list[float]) -> None:
    progress = Progress.from_budget(budget, 13, warmup_steps=2)
    observed = []
    for seconds in (1.0, 3.0, 4.0, 9.0):
        progress.count_step(seconds)
        observed.append(progress.share_after_warmup)
    assert observed == shares


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget(epochs=20), 13),
        (Budget(epochs=10), 13),
        (Budget(epochs=2), 2),
        (Budget(steps=1000), 13),
        (Budget(steps=29), 2),
        (Budget(steps=3), 1),
        (Budget(seconds=1), 13),  # the number of steps is unknown
    ],
)
def test_short_runs_validate_at_least_ten_times(budget, steps):
    assert Progress.from_budget(budget, 13, 0).steps_between_validations(13) == steps
