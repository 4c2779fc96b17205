"""Number of seeds that a paired t test needs, and its power."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from service.stats.checks import vector, why_no_test

MAX_SEEDS_NEEDED = 10_000
"""Largest number of seeds that is estimated; a comparison allows fewer (`design.requests.MAX_SEEDS`)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def seeds_needed(differences: ArrayLike, alpha: float = 0.05, power: float = 0.8, *, scale: float = 0.0) -> int | None:
    """Approximate total number of paired seeds with which a two-sided t test has the requested power.

    The mean and standard deviation of `differences` are taken as the true ones. This is a rough guide: after 5 seeds,
    the estimate of a true 10 is between 4 and 44 in 8 of 10 cases. The power is that of the noncentral t distribution.

    Args:
        differences: paired differences, shape (n,).
        alpha: two-sided level, in (0, 1) (default 0.05).
        power: probability of a significant result, in (0, 1) (default 0.8).
        scale: size of the numbers that were subtracted (default 0: that of the differences).

    Returns:
        None if no test is possible (see `paired_difference`), or if more than 10,000 seeds would be needed.

    Raises:
        ValueError: if `alpha` or `power` is out of range.
    """
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power must be between 0 and 1, not {alpha} and {power}")
    x = vector(differences)
    if why_no_test(x, scale):
        return None
    effect = abs(float(x.mean())) / float(x.std(ddof=1))
    if power_of_t(MAX_SEEDS_NEEDED, effect, alpha) < power:
        return None
    # The normal approximation gives slightly fewer seeds than the t test needs, so the search starts there.
    too_few = max(1, min(MAX_SEEDS_NEEDED - 1, int(((ndtri(1 - alpha / 2) + ndtri(power)) / effect) ** 2) - 1))
    too_few = too_few if too_few == 1 or power_of_t(too_few, effect, alpha) < power else 1
    enough, step = min(MAX_SEEDS_NEEDED, too_few + 2), 2
    while power_of_t(enough, effect, alpha) < power:
        step *= 2
        too_few, enough = enough, min(MAX_SEEDS_NEEDED, enough + step)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if power_of_t(middle, effect, alpha) >= power else (middle, enough)
    return enough


def power_of_t(n: int, effect: float, alpha: float) -> float:
    """Power of a two-sided t test of `n` differences whose mean is `effect` times their standard deviation.

    The power given the sample standard deviation (a chi distribution) is a normal probability, which is averaged over
    quantiles of that distribution; scipy's `nctdtr` is NaN for large effects.
    """
    spread = np.sqrt(gammaincinv((n - 1) / 2, (_NODES + 1) / 2) * 2 / (n - 1))
    critical, shift = -stdtrit(n - 1, alpha / 2), effect * n**0.5
    given_spread = ndtr(shift - critical * spread) + ndtr(-shift - critical * spread)
    return float(given_spread @ _WEIGHTS / 2)
