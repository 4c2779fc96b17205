"""An always-valid paired t test: its p value and confidence sequence hold after every seed, without planned looks.

The distribution of the t statistic does not depend on the unknown standard deviation. Its likelihood ratio, averaged
over a normal prior on the standardized effect, is therefore a martingale under the null hypothesis, and exceeds
1 / alpha at any time with probability at most alpha (Ville's inequality). Sources: Lai 1976 (Ann. Stat. 4); Gonen et
al. 2005 (Am. Stat. 59) for the closed form; Perez-Ortiz et al. 2022 and Wang & Ramdas 2024 for the validity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.checks import RESOLUTION, SMALLEST, Interval, Vector, is_finite, vector, why_no_test


@dataclass(frozen=True)
class Anytime:
    """Result of an always-valid test after `n` differences.

    `p` is always valid: under the null hypothesis it falls below a level at any time with probability at most that
    level. `interval` is a confidence sequence: with probability 1 - alpha the intervals at all n contain the true
    difference. `cannot_say` gives the reason for each None.
    """

    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    cannot_say: str | None


def anytime(differences: ArrayLike, alpha: float = 0.05, effect: float = 1.0, *, scale: float = 0.0) -> Anytime:
    """Sequential t test of paired differences.

    Args:
        differences: shape (n,), in the order in which they were observed.
        alpha: level of the interval, in (0, 1) (default 0.05).
        effect: standard deviation of the normal prior on the standardized difference, > 0 (default 1: a mean difference
            as large as the standard deviation). A poor choice costs seeds, never validity.
        scale: size of the numbers that were subtracted (default 0: that of the differences); their rounding error does
            not count as variation.

    Returns:
        The interval is the intersection of the intervals at all n so far. With few differences it is unbounded, and
        None.

    Raises:
        ValueError: if `alpha` or `effect` is out of range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if not 0 < effect < np.inf:
        raise ValueError(f"effect must be positive and finite, not {effect}")
    x = vector(differences)
    if why := why_no_test(x, scale):
        mean = float(x.mean()) if len(x) and is_finite(x) else None
        return Anytime(len(x), mean, None, None, why)
    n, means, squares = _running(x, scale)
    spread = 1 + n * effect**2
    difference = float(x.mean())
    p = _always_valid_p(n, n * means**2 / squares, spread)
    log_ratio = (np.log(spread) - 2 * np.log(alpha)) / n  # log of (sqrt(spread) / alpha)^(2 / n)
    bounded = log_ratio < np.log(spread)
    if not bounded.any():
        why = f"{len(x)} seeds are too few for an always-valid interval"
        return Anytime(len(x), difference, None, p, why)
    n, means, squares, spread = n[bounded], means[bounded], squares[bounded], spread[bounded]
    ratio = np.exp(log_ratio[bounded])
    half = np.sqrt(squares / n * spread * (ratio - 1) / (spread - ratio))
    low, high = float((means - half).max()), float((means + half).min())
    if low > high:
        why = "the differences drift: the intervals at different numbers of seeds do not overlap"
        return Anytime(len(x), difference, None, p, why)
    return Anytime(len(x), difference, (low, high), p, None)


def _running(x: Vector, scale: float) -> tuple[Vector, Vector, Vector]:
    """n, and the mean and sum of squares about the mean (Welford) of the first n, for each n at which they vary."""
    n = np.arange(1.0, len(x) + 1)
    means = np.cumsum(x) / n
    squares = np.cumsum(np.square(x[1:] - means[:-1]) * (n[:-1] / n[1:]))
    sizes = np.maximum(np.maximum.accumulate(np.abs(x)), scale)
    spans = np.maximum.accumulate(x) - np.minimum.accumulate(x)
    varies = (spans > np.maximum(RESOLUTION * sizes, SMALLEST))[1:]
    return n[1:][varies], means[1:][varies], squares[varies]


def _always_valid_p(n: Vector, t2_over_nu: Vector, spread: Vector) -> float:
    """1 over the largest Bayes factor so far, at most 1. With nu = n - 1, g = effect^2 and spread = 1 + n g it is

    (1 + n g)^(-1/2) [(1 + t^2 / nu) / (1 + t^2 / (nu (1 + n g)))]^(n / 2).
    """
    log_factor = n / 2 * (np.log1p(t2_over_nu) - np.log1p(t2_over_nu / spread)) - np.log(spread) / 2
    return float(np.exp(-max(0.0, float(log_factor.max()))))
