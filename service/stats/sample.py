"""Mean, standard deviation and t interval of one sample."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from service.stats.checks import CONFIDENCE, NOT_FINITE, Interval, is_constant, is_finite, vector


@dataclass(frozen=True)
class Sample:
    """Mean and standard deviation of `n` values, and the t interval of the mean.

    `cannot_say` gives the reason for each None.
    """

    n: int
    mean: float | None
    sd: float | None
    interval: Interval | None
    cannot_say: str | None


def describe(values: ArrayLike) -> Sample:
    """Mean, standard deviation (ddof 1) and 95 % t interval of a sample.

    Args:
        values: shape (n,).

    Returns:
        Standard deviation and interval are None with fewer than two values. The interval is None if all values are
        equal, because a sample without variation does not show that the variance is zero. All are None if a value is
        not finite or larger than 1e100 in magnitude.
    """
    x = vector(values)
    if not len(x):
        return Sample(0, None, None, None, "no run has a value")
    if not is_finite(x):
        return Sample(len(x), None, None, None, NOT_FINITE)
    mean = float(x.mean())
    if len(x) == 1:
        return Sample(1, mean, None, None, "there is only one value")
    sd = float(x.std(ddof=1))
    if is_constant(x):
        return Sample(len(x), mean, sd, None, "all values are equal")
    return Sample(len(x), mean, sd, t_interval(mean, sd, len(x)), None)


def t_interval(mean: float, sd: float, n: int, level: float = 1 - CONFIDENCE) -> Interval:
    """Student's t interval of the mean of `n` values at confidence 1 - `level` (default 95 %)."""
    half = -float(stdtrit(n - 1, level / 2)) * sd / n**0.5
    return mean - half, mean + half


def t_p(mean: float, sd: float, n: int) -> float:
    """Two-sided p of Student's t test that the mean of `n` values is zero; `sd` must be positive."""
    return float(2 * stdtr(n - 1, -abs(mean) / (sd / n**0.5)))
