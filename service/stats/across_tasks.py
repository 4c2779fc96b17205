"""Statistics over several tasks: the interquartile mean and the probability of improvement.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Scores are one
array of seed scores per task, higher is better. The numbers of seeds may differ; the order of tasks is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from service.stats.bootstrap import REPLICATES, Estimate, estimate, middle_mean, stratified_bootstrap
from service.stats.checks import NOT_FINITE, Vector, is_finite, vector
from service.stats.ranks import cliffs_delta

MIN_SEEDS, MIN_SCORES = 5, 20
"""Minimum for an interval. Resampling n seeds reproduces (n - 1) / n of their variance: with 5 seeds on each of 4 tasks
the 95 % interval of the interquartile mean covers 90 % and that of the probability of improvement 93 %, with 10 seeds
93 % and 94 %."""


def interquartile_mean_across(
    scores: Sequence[ArrayLike], *, replicates: int = REPLICATES, rng: int | np.random.Generator = 0
) -> Estimate:
    """Mean of the middle half of all scores of all tasks, with a 95 % stratified bootstrap interval.

    Args:
        scores: one array of seed scores per task, all on one scale, such as accuracy.
        replicates: number of bootstrap resamples (default 2,000).
        rng: seed or generator (default 0).

    Returns:
        The interval is None with fewer than 5 seeds on a task or 20 scores in total, or if no resample changes the
        value.
    """
    tasks = [vector(task) for task in scores]
    if why := _why_no_value(tasks):
        return Estimate(_count(tasks), None, None, why)
    value = float(middle_mean(tasks))
    if why := _why_no_interval(tasks):
        return Estimate(_count(tasks), value, None, why)
    return estimate(_count(tasks), value, stratified_bootstrap(tasks, middle_mean, replicates=replicates, rng=rng))


def probability_of_improvement(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    *,
    replicates: int = REPLICATES,
    rng: int | np.random.Generator = 0,
) -> Estimate:
    """Probability that a run of `a` scores above a run of `b` on the same task, averaged over tasks; a tie counts half.

    This is the mean of the Mann-Whitney statistic U / (n_a n_b); seeds are not paired. The 95 % interval resamples the
    seeds of both.

    Args:
        a: one array of seed scores per task.
        b: the same tasks in the same order.
        replicates: number of bootstrap resamples (default 2,000).
        rng: seed or generator (default 0).

    Returns:
        The interval is None with fewer than 5 seeds on a task or 20 scores in total for `a` or `b`.

    Raises:
        ValueError: if the numbers of tasks differ.
    """
    a_scores, b_scores = [vector(task) for task in a], [vector(task) for task in b]
    if len(a_scores) != len(b_scores):
        raise ValueError(f"{len(a_scores)} tasks cannot be compared with {len(b_scores)}")
    n = _count([*a_scores, *b_scores])
    if why := _why_no_value([*a_scores, *b_scores]):
        return Estimate(n, None, None, why)
    deltas = [cliffs_delta(x, y) or 0.0 for x, y in zip(a_scores, b_scores, strict=True)]
    value = float(np.mean(deltas)) / 2 + 0.5
    if why := _why_no_interval(a_scores) or _why_no_interval(b_scores):
        return Estimate(n, value, None, why)
    return estimate(n, value, _resampled_probabilities(a_scores, b_scores, replicates, np.random.default_rng(rng)))


def _resampled_probabilities(
    a_scores: Sequence[Vector], b_scores: Sequence[Vector], replicates: int, rng: np.random.Generator
) -> Vector:
    """Bootstrap replicates, (replicates,), from the counts of each seed in the resamples, (replicates, n)."""
    total = np.zeros(replicates)
    for x, y in zip(a_scores, b_scores, strict=True):
        wins = (np.sign(x[:, None] - y) + 1) / 2  # (n_a, n_b)
        counts_x = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), replicates)
        counts_y = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), replicates)
        total += ((counts_x @ wins) * counts_y).sum(axis=1) / wins.size
    return total / len(a_scores)


def _count(tasks: Sequence[Vector]) -> int:
    return sum(len(x) for x in tasks)


def _why_no_value(tasks: Sequence[Vector]) -> str | None:
    if not tasks:
        return "there are no tasks"
    if not all(len(x) for x in tasks):
        return "a task has no scores"
    return None if all(is_finite(x) for x in tasks) else NOT_FINITE


def _why_no_interval(tasks: Sequence[Vector]) -> str | None:
    if min(len(x) for x in tasks) >= MIN_SEEDS and _count(tasks) >= MIN_SCORES:
        return None
    return (
        f"bootstrap intervals need {MIN_SEEDS} seeds per task and {MIN_SCORES} scores in total; "
        "with fewer they are far too narrow"
    )
