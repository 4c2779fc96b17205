"""One sample: mean, spread and the t interval of the mean."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from service.stats.values import CONFIDENCE, NOT_FINITE, Interval, is_constant, is_finite, vector


@dataclass(frozen=True)
class Sample:
    """Mean and spread of `n` values; `interval` is the t interval of the mean. `cannot_say` explains each None."""

    n: int
    mean: float | None
    sd: float | None
    interval: Interval | None
    cannot_say: str | None


def describe(values: ArrayLike) -> Sample:
    """Mean, standard deviation (ddof 1) and 95 % t interval of `values`, shape (n,).

    The sd is None for fewer than two values, the interval also where all values are equal: no spread was seen, which
    does not show that there is none. A value that is not finite, or beyond 1e100, makes everything None.
    """
    x = vector(values)
    if not len(x):
        return Sample(0, None, None, None, "cannot say, because there is no value")
    if not is_finite(x):
        return Sample(len(x), None, None, None, NOT_FINITE)
    mean = float(x.mean())
    if len(x) == 1:
        return Sample(1, mean, None, None, "cannot say, because there is only one value")
    sd = float(x.std(ddof=1))
    if is_constant(x):
        return Sample(len(x), mean, sd, None, "cannot say, because all values are equal")
    return Sample(len(x), mean, sd, t_interval(mean, sd, len(x)), None)


def t_interval(mean: float, sd: float, n: int, level: float = 1 - CONFIDENCE) -> Interval:
    """Student's interval of a mean of `n` values, missing the truth in a share `level` of samples."""
    half = -float(stdtrit(n - 1, level / 2)) * sd / n**0.5
    return mean - half, mean + half


def t_p(mean: float, sd: float, n: int) -> float:
    """Two-sided p of Student's test that the mean of `n` values is zero; `sd` is positive."""
    return float(2 * stdtr(n - 1, -abs(mean) / (sd / n**0.5)))
