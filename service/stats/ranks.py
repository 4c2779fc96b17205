"""Comparisons that look at order alone: Wilcoxon's signed ranks for pairs, and Cliff's delta."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from service.stats.signs import PValue
from service.stats.values import Vector, is_finite, rounding, vector, why_no_test

FEWEST_RANKS = 6
"""With five differences the smallest two-sided p of the signed ranks is 2 / 2^5 = 0.0625."""

MOST_EXACT = 50
"""Up to this many differences the distribution is exact; beyond, the normal one is within 0.001 of it."""


def midranks(x: Vector, tolerance: float = 0.0) -> Vector:
    """Ranks 1..n of `x`, shape (n,); values no further than `tolerance` from the next smaller one share their mean."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=-np.inf) > tolerance)
    sizes = np.diff(starts, append=len(x))
    ranks = np.empty(len(x))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def wilcoxon_p(differences: ArrayLike, *, scale: float = 0.0) -> PValue:
    """Two-sided signed-rank test that `differences`, shape (n,), are symmetric about zero (Wilcoxon 1945).

    Zeros are left out, as Wilcoxon did; equal sizes share their mean rank. Up to 50 the distribution is exact, ties
    included (all sign patterns of these ranks, by dynamic programming); beyond, normal with the variance of the ranks
    as they are. `scale` as in `sign_flip_p`. None: fewer than six that are not zero, all equal, or one not finite.
    """
    x = vector(differences)
    if why := why_no_test(x, scale):
        return PValue(None, why)
    tolerance = rounding(x, scale)
    x = x[np.abs(x) > tolerance]
    if len(x) < FEWEST_RANKS:
        why = f"cannot say, because signed ranks need {FEWEST_RANKS} pairs that differ, and here {len(x)} do"
        return PValue(None, why)
    ranks = midranks(np.abs(x), tolerance)
    positive = float(ranks[x > 0].sum())
    smaller = min(positive, float(ranks.sum()) - positive)
    if len(x) <= MOST_EXACT:
        return PValue(min(1.0, 2 * _share_of_signs(ranks, smaller)), None)
    z = (smaller - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4)
    return PValue(min(1.0, 2 * float(ndtr(z))), None)


def _share_of_signs(ranks: Vector, largest: float) -> float:
    """The share of the 2^n sign patterns whose positive ranks sum to `largest` or less."""
    doubled = np.rint(2 * ranks).astype(np.intp)  # mean ranks are whole or half
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] += chance[:-rank]  # numpy sees the overlap
        chance /= 2
    return float(chance[: round(2 * largest) + 1].sum())


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float | None:
    """P(a > b) - P(a < b) over all pairs of `a`, shape (n,), and `b`, shape (m,): -1 to 1, ties 0 (Cliff 1993).

    None without values, or with one that is not finite.
    """
    x, y = vector(a), vector(b)
    if not (len(x) and len(y) and is_finite(x) and is_finite(y)):
        return None
    y = np.sort(y)
    below, up_to = np.searchsorted(y, x, "left"), np.searchsorted(y, x, "right")
    return float((below + up_to - len(y)).sum() / (len(x) * len(y)))
