"""Statistics of a comparison: numbers in; mean, interval, paired test and adjusted p out.

Pure functions on numpy arrays. What cannot be said is None with the reason beside it, never NaN. The t distribution
comes from `scipy.special`, because `scipy.stats` alone would triple the memory of the API process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
"""Level of every interval."""

RESOLUTION = float(np.finfo(np.float32).eps)
"""Metrics are computed in single precision: values that differ by a smaller share of their size are equal."""

LARGEST, SMALLEST = 1e100, 1e-100
"""Beyond these the squares of double precision overflow or vanish, and with them the spread."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """Mean and spread of `n` values; `interval` is the t interval of the mean. `cannot_say` explains each None."""

    n: int
    mean: float | None
    sd: float | None
    interval: Interval | None
    cannot_say: str | None


@dataclass(frozen=True)
class Paired:
    """Mean of `n` paired differences a - b, its t interval and the two-sided p of "no difference"."""

    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    cannot_say: str | None


def describe(values: ArrayLike) -> Sample:
    """Mean, standard deviation (ddof 1) and 95 % t interval of `values`, shape (n,).

    The sd is None for fewer than two values, the interval also where all values are equal: no spread was seen, which
    does not show that there is none. A value that is not finite, or beyond 1e100, makes everything None.
    """
    x = _vector(values)
    if not len(x):
        return Sample(0, None, None, None, "cannot say, because there is no value")
    if not _is_finite(x):
        return Sample(len(x), None, None, None, "cannot say, because a value is not finite")
    mean = float(x.mean())
    if len(x) == 1:
        return Sample(1, mean, None, None, "cannot say, because there is only one value")
    sd = float(x.std(ddof=1))
    if _is_constant(x, scale=x):
        return Sample(len(x), mean, sd, None, "cannot say, because all values are equal")
    return Sample(len(x), mean, sd, _t_interval(mean, sd, len(x)), None)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Paired:
    """Paired t test of `a` against `b`, both of shape (n,), where a[i] and b[i] belong together.

    Raises ValueError for arrays of different lengths.
    """
    x, y = _vector(a), _vector(b)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values cannot be paired with {len(y)}")
    if not len(x):
        return Paired(0, None, None, None, "cannot say, because there are no pairs")
    if not (_is_finite(x) and _is_finite(y)):
        return Paired(len(x), None, None, None, "cannot say, because a value is not finite")
    differences = x - y
    mean = float(differences.mean())
    if len(x) == 1:
        return Paired(1, mean, None, None, "cannot say, because there is only one pair")
    if _is_constant(differences, scale=np.concatenate((x, y))):
        return Paired(len(x), mean, None, None, "cannot say, because every pair has the same difference")
    sd = float(differences.std(ddof=1))
    t = mean / (sd / np.sqrt(len(x)))
    p = float(2 * stdtr(len(x) - 1, -abs(t)))
    return Paired(len(x), mean, _t_interval(mean, sd, len(x)), p, None)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979), in the order given; a None was not tested, stays None and does not count.

    The adjusted value is the smallest family-wise error rate at which that hypothesis is rejected.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = largest
    return adjusted


def median_to_target(first_hits: Sequence[float | None]) -> float | None:
    """Median over seeds of the steps (or seconds) to a target; None counts as "later than the run lasted" (censored).

    None where half of the runs or more missed the target: then the median is unknown. Also for no runs.
    """
    if not first_hits:
        return None
    median = float(np.median([np.inf if hit is None else hit for hit in first_hits]))
    return median if np.isfinite(median) else None


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"expected one dimension, not shape {vector.shape}")
    return vector


def _is_finite(x: NDArray[np.float64]) -> bool:
    return bool((np.abs(x) <= LARGEST).all())


def _is_constant(x: NDArray[np.float64], scale: NDArray[np.float64]) -> bool:
    """Whether `x` varies by less than the rounding of the numbers in `scale` that it was computed from."""
    return bool(np.ptp(x) <= max(RESOLUTION * np.abs(scale).max(), SMALLEST))


def _t_interval(mean: float, sd: float, n: int) -> Interval:
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / n**0.5
    return mean - half, mean + half
