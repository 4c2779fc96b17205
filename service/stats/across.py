"""Several tasks at once: the interquartile mean, and how often one optimizer beats another.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Scores are one array of
seed scores for each task, higher is better; the numbers of seeds may differ, the tasks are in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from service.stats.bootstrap import REPLICATES, Estimate, estimate, middle_mean, stratified_bootstrap
from service.stats.ranks import cliffs_delta
from service.stats.values import NOT_FINITE, Vector, is_finite, vector

FEWEST_SEEDS, FEWEST_SCORES = 5, 20
"""Resampling n seeds shows (n - 1) / n of their variance: with 5 seeds on each of 4 tasks the 95 % interval of the
interquartile mean covers 90 % and that of the probability of improvement 93 %, with 10 seeds 93 % and 94 %."""


def interquartile_mean_across(
    scores: Sequence[ArrayLike], *, replicates: int = REPLICATES, rng: int | np.random.Generator = 0
) -> Estimate:
    """Mean of the middle half of all scores of all tasks, with its 95 % stratified bootstrap interval.

    Scores have to be on one scale for this, such as accuracies. The interval is None below five seeds on a task or 20
    scores in all, and where resampling changes nothing. `rng`: a seed or a generator.
    """
    tasks = [vector(each) for each in scores]
    if why := _why_not(tasks):
        return Estimate(_count(tasks), None, None, why)
    value = float(middle_mean(tasks))
    if why := _too_few(tasks):
        return Estimate(_count(tasks), value, None, why)
    return estimate(_count(tasks), value, stratified_bootstrap(tasks, middle_mean, replicates=replicates, rng=rng))


def probability_of_improvement(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    *,
    replicates: int = REPLICATES,
    rng: int | np.random.Generator = 0,
) -> Estimate:
    """The chance that a run of `a` scores above one of `b` on the same task, averaged over tasks, ties half.

    That is the mean of Mann & Whitney's U / (n_a n_b); seeds are not paired. The 95 % interval resamples the seeds of
    both, and is None below five seeds on a task or 20 scores for each of the two. Raises ValueError for different
    numbers of tasks.
    """
    ours, theirs = [vector(each) for each in a], [vector(each) for each in b]
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} tasks cannot be compared with {len(theirs)}")
    n = _count([*ours, *theirs])
    if why := _why_not([*ours, *theirs]):
        return Estimate(n, None, None, why)
    deltas = [cliffs_delta(x, y) or 0.0 for x, y in zip(ours, theirs, strict=True)]
    value = float(np.mean(deltas)) / 2 + 0.5
    if why := _too_few(ours) or _too_few(theirs):
        return Estimate(n, value, None, why)
    return estimate(n, value, _resampled_chances(ours, theirs, replicates, np.random.default_rng(rng)))


def _resampled_chances(
    ours: Sequence[Vector], theirs: Sequence[Vector], replicates: int, rng: np.random.Generator
) -> Vector:
    """Shape (replicates,). How often each seed is drawn, (replicates, n), is all that the mean of a table needs."""
    total = np.zeros(replicates)
    for x, y in zip(ours, theirs, strict=True):
        won = (np.sign(x[:, None] - y) + 1) / 2  # (n_a, n_b)
        times_x = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), replicates)
        times_y = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), replicates)
        total += ((times_x @ won) * times_y).sum(axis=1) / won.size
    return total / len(ours)


def _count(tasks: Sequence[Vector]) -> int:
    return sum(len(x) for x in tasks)


def _why_not(tasks: Sequence[Vector]) -> str | None:
    if not tasks:
        return "cannot say, because there is no task"
    if not all(len(x) for x in tasks):
        return "cannot say, because a task has no score"
    return None if all(is_finite(x) for x in tasks) else NOT_FINITE


def _too_few(tasks: Sequence[Vector]) -> str | None:
    if min(len(x) for x in tasks) >= FEWEST_SEEDS and _count(tasks) >= FEWEST_SCORES:
        return None
    return (
        f"cannot say, because intervals need {FEWEST_SEEDS} seeds on each task and {FEWEST_SCORES} scores in all: "
        "with fewer they are far too narrow"
    )
