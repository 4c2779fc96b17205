"""Stratified bootstrap over seeds, and the interquartile mean of one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from service.stats.checks import CONFIDENCE, NOT_FINITE, Interval, Vector, is_constant, is_finite, there_are, vector

Statistic: TypeAlias = Callable[[list[Vector]], Vector]
"""A function from resampled scores, per task an array of shape (replicates, seeds), to values, shape (replicates,)."""

REPLICATES = 2000
"""Number of resamples of Agarwal et al. (2021), enough for two digits of a percentile."""

MIN_VALUES = 20
"""Minimum for a percentile interval. Of 5 values, the 95 % interval of the mean covers 83 %; of 20, this one 94 %."""

BLOCK = 1 << 20
"""Resampled values in memory at a time: 8 MiB."""


@dataclass(frozen=True)
class Estimate:
    """A value computed from `n` scores, with its 95 % interval. `cannot_say` gives the reason for each None."""

    n: int
    value: float | None
    interval: Interval | None
    cannot_say: str | None


def stratified_bootstrap(
    scores: Sequence[ArrayLike],
    statistic: Statistic,
    *,
    replicates: int = REPLICATES,
    rng: int | np.random.Generator = 0,
) -> Vector:
    """Evaluate a statistic on resamples of the seeds within each task.

    Tasks are not resampled: the result generalizes to new seeds on the same tasks. Source: Agarwal et al. 2021, "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice", section 4.1.

    Args:
        scores: one non-empty array of seed scores, shape (n_t,), per task.
        statistic: the statistic, vectorized over replicates.
        replicates: number of resamples (default 2,000).
        rng: seed or generator (default 0, which reproduces the result).

    Returns:
        Values of the statistic, shape (replicates,).
    """
    generator = np.random.default_rng(rng)
    strata = [vector(task) for task in scores]
    rows = max(1, BLOCK // max(1, sum(len(x) for x in strata)))
    blocks = []
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        blocks.append(statistic([x[generator.integers(0, len(x), (count, len(x)))] for x in strata]))
    return np.concatenate(blocks)


def middle_mean(tasks: list[Vector]) -> Vector:
    """Interquartile mean of the scores of all tasks together, (..., n_t) -> (...); a quarter is cut at each end."""
    pooled = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    n = pooled.shape[-1]
    return np.asarray(pooled[..., n // 4 : n - n // 4].mean(axis=-1))


def interquartile_mean(
    values: ArrayLike, *, replicates: int = REPLICATES, rng: int | np.random.Generator = 0
) -> Estimate:
    """Mean of the middle half of a sample, with a 95 % percentile bootstrap interval.

    Args:
        values: shape (n,).
        replicates: number of resamples (default 2,000).
        rng: seed or generator (default 0).

    Returns:
        Value and interval are None with fewer than 20 values, whose percentile intervals are too narrow, or if a value
        is not finite. The interval is None if all values are equal.
    """
    x = vector(values)
    if not is_finite(x):
        return Estimate(len(x), None, None, NOT_FINITE)
    if len(x) < MIN_VALUES:
        why = f"percentile intervals need {MIN_VALUES} values; {there_are(len(x))}"
        return Estimate(len(x), None, None, why)
    value = float(middle_mean([x]))
    if is_constant(x):
        return Estimate(len(x), value, None, "all values are equal")
    return estimate(len(x), value, stratified_bootstrap([x], middle_mean, replicates=replicates, rng=rng))


def estimate(n: int, value: float, resampled: Vector) -> Estimate:
    """`value` with the percentile interval of its `resampled` values; the interval is None if these do not vary."""
    if is_constant(resampled):
        return Estimate(n, value, None, "all bootstrap samples give the same value")
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(resampled, (tail, 1 - tail)))
    return Estimate(n, value, (low, high), None)
