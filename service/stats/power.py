"""How many seeds it would take."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from service.stats.values import vector, why_no_test

MOST_SEEDS = 10_000

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def seeds_needed(differences: ArrayLike, alpha: float = 0.05, power: float = 0.8, *, scale: float = 0.0) -> int | None:
    """About how many paired seeds, all in all, a t test at two-sided `alpha` needs to find the mean with this `power`.

    It takes the mean and sd of `differences`, shape (n,), for the truth: a rough guide, since after five seeds a true
    10 is answered by 4 to 44 in eight of ten cases. The power is that of the noncentral t distribution. None where no
    test is possible (see `paired_difference`), and where it would take more than 10,000, as for a mean of zero. `scale`
    as in `group_sequential`. Raises ValueError unless alpha and power are in (0, 1).
    """
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power are between 0 and 1, not {alpha} and {power}")
    x = vector(differences)
    if why_no_test(x, scale):
        return None
    effect = abs(float(x.mean())) / float(x.std(ddof=1))
    if power_of_t(MOST_SEEDS, effect, alpha) < power:
        return None
    # A known spread would need fewer than that, and the unknown one not many more: a search that starts there is short.
    too_few = max(1, min(MOST_SEEDS - 1, int(((ndtri(1 - alpha / 2) + ndtri(power)) / effect) ** 2) - 1))
    too_few = too_few if too_few == 1 or power_of_t(too_few, effect, alpha) < power else 1
    enough, step = min(MOST_SEEDS, too_few + 2), 2
    while power_of_t(enough, effect, alpha) < power:
        step *= 2
        too_few, enough = enough, min(MOST_SEEDS, enough + step)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if power_of_t(middle, effect, alpha) >= power else (middle, enough)
    return enough


def power_of_t(n: int, effect: float, alpha: float) -> float:
    """Power of a two-sided t test of `n` differences whose mean is `effect` times their spread.

    The noncentral t as a normal mean over a chi spread, averaged over the quantiles of the latter: scipy's `nctdtr`
    is NaN for large effects.
    """
    spread = np.sqrt(gammaincinv((n - 1) / 2, (_NODES + 1) / 2) * 2 / (n - 1))
    critical, shift = -stdtrit(n - 1, alpha / 2), effect * n**0.5
    found = ndtr(shift - critical * spread) + ndtr(-shift - critical * spread)
    return float(found @ _WEIGHTS / 2)
