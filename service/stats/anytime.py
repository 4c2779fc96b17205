"""A t test that may be read after every seed, with no plan at all: always-valid p and confidence sequence.

The t statistic does not depend on the unknown spread, so its likelihood ratio, averaged over a normal prior on the
standardized effect, is a martingale without a difference: it ever exceeds 1 / alpha with probability alpha at most
(Ville). Lai 1976 (Ann. Stat. 4), Gonen et al. 2005 (Am. Stat. 59) for the closed form, Perez-Ortiz et al. 2022 and
Wang & Ramdas 2024 for the validity at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.values import RESOLUTION, SMALLEST, Interval, Vector, is_finite, vector, why_no_test


@dataclass(frozen=True)
class Anytime:
    """What `n` differences say, whenever one looks.

    `p` is always valid: the chance that it is ever below some level is at most that level. `interval` is the
    confidence sequence: with probability 1 - alpha all of them, at all n, hold the truth. `cannot_say` explains each
    None.
    """

    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    cannot_say: str | None


def anytime(differences: ArrayLike, alpha: float = 0.05, effect: float = 1.0, *, scale: float = 0.0) -> Anytime:
    """Sequential t test of `differences`, shape (n,), in the order in which they came.

    `effect`: the standardized difference to be ready for, as the standard deviation of its prior (default 1: a mean
    difference as large as the spread of the differences). A bad guess costs seeds, never validity. The interval at
    1 - alpha is the intersection of those at all n so far; with few differences it has no finite bound. `scale` as in
    `group_sequential`. Raises ValueError for an alpha outside (0, 1) and an effect that is not positive.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
    if not 0 < effect < np.inf:
        raise ValueError(f"the effect is positive and finite, not {effect}")
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
        why = f"cannot say, because {len(x)} differences are too few for an interval that holds at any time"
        return Anytime(len(x), difference, None, p, why)
    n, means, squares, spread = n[bounded], means[bounded], squares[bounded], spread[bounded]
    ratio = np.exp(log_ratio[bounded])
    half = np.sqrt(squares / n * spread * (ratio - 1) / (spread - ratio))
    low, high = float((means - half).max()), float((means + half).min())
    if low > high:
        why = "cannot say, because the differences drift: the intervals after more and fewer seeds do not overlap"
        return Anytime(len(x), difference, None, p, why)
    return Anytime(len(x), difference, (low, high), p, None)


def _running(x: Vector, scale: float) -> tuple[Vector, Vector, Vector]:
    """Counts n, means and sums of squares about the mean (Welford) of the first n, for each n where these vary."""
    n = np.arange(1.0, len(x) + 1)
    means = np.cumsum(x) / n
    squares = np.cumsum(np.square(x[1:] - means[:-1]) * (n[:-1] / n[1:]))
    sizes = np.maximum(np.maximum.accumulate(np.abs(x)), scale)
    spans = np.maximum.accumulate(x) - np.minimum.accumulate(x)
    varies = (spans > np.maximum(RESOLUTION * sizes, SMALLEST))[1:]
    return n[1:][varies], means[1:][varies], squares[varies]


def _always_valid_p(n: Vector, t2_over_nu: Vector, spread: Vector) -> float:
    """One over the largest Bayes factor so far, at most 1; with nu = n - 1 it is

    (1 + n g)^(-1/2) [(1 + t^2 / nu) / (1 + t^2 / (nu (1 + n g)))]^(n / 2), where g = effect^2 and spread = 1 + n g.
    """
    log_factor = n / 2 * (np.log1p(t2_over_nu) - np.log1p(t2_over_nu / spread)) - np.log(spread) / 2
    return float(np.exp(-max(0.0, float(log_factor.max()))))
