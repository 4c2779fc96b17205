"""Resampling seeds: the stratified bootstrap, and the interquartile mean of one large sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from service.stats.values import CONFIDENCE, NOT_FINITE, Interval, Vector, here, is_constant, is_finite, vector

Statistic: TypeAlias = Callable[[list[Vector]], Vector]
"""Resampled scores, for each task an array of shape (replicates, seeds), to a value each, shape (replicates,)."""

REPLICATES = 2000
"""Agarwal et al. (2021) use 2,000: enough for two digits of a percentile."""

FEWEST_VALUES = 20
"""Percentile intervals of fewer are too narrow: of 5 values that of the mean covers 83 %; of 20, this one 94 %."""

BLOCK = 1 << 20
"""Resampled values held at a time: 8 MiB."""


@dataclass(frozen=True)
class Estimate:
    """A value computed from `n` scores, and its 95 % interval. `cannot_say` explains each None."""

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
    """The statistic over `replicates` resamples of the seeds within each task, shape (replicates,).

    `scores` holds one array of seed scores for each task, (n_t,), none empty. Tasks are not resampled: the answer is
    about these tasks and new seeds. Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice", section 4.1. `rng`: a seed or a generator; the default gives the same answer every time.
    """
    generator = np.random.default_rng(rng)
    strata = [vector(each) for each in scores]
    rows = max(1, BLOCK // max(1, sum(len(x) for x in strata)))
    blocks = []
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        blocks.append(statistic([x[generator.integers(0, len(x), (count, len(x)))] for x in strata]))
    return np.concatenate(blocks)


def middle_mean(tasks: list[Vector]) -> Vector:
    """Interquartile mean over all tasks' scores together, shapes (..., n_t) -> (...): a quarter is cut at each end."""
    pooled = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    n = pooled.shape[-1]
    return np.asarray(pooled[..., n // 4 : n - n // 4].mean(axis=-1))


def interquartile_mean(
    values: ArrayLike, *, replicates: int = REPLICATES, rng: int | np.random.Generator = 0
) -> Estimate:
    """Mean of the middle half of `values`, shape (n,), with its 95 % percentile bootstrap interval.

    Needs 20 values: below, percentile intervals are too narrow (of 5, that of a mean covers 83 %). Everything is None
    for fewer, and for a value that is not finite; the interval is None where all values are equal.
    """
    x = vector(values)
    if not is_finite(x):
        return Estimate(len(x), None, None, NOT_FINITE)
    if len(x) < FEWEST_VALUES:
        why = f"cannot say, because percentile intervals need {FEWEST_VALUES} values, and {here(len(x))}"
        return Estimate(len(x), None, None, why)
    value = float(middle_mean([x]))
    if is_constant(x):
        return Estimate(len(x), value, None, "cannot say, because all values are equal")
    return estimate(len(x), value, stratified_bootstrap([x], middle_mean, replicates=replicates, rng=rng))


def estimate(n: int, value: float, resampled: Vector) -> Estimate:
    """`value` with the percentile interval of its `resampled` values, where these vary."""
    if is_constant(resampled):
        return Estimate(n, value, None, "cannot say, because resampling the seeds does not change the value")
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(resampled, (tail, 1 - tail)))
    return Estimate(n, value, (low, high), None)
