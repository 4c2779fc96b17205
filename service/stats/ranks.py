"""Rank statistics: Wilcoxon's signed-rank test for pairs, and Cliff's delta."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from service.stats.checks import Vector, is_finite, rounding, there_are, vector, why_no_test
from service.stats.sign_tests import PValue

MIN_RANKS = 6
"""Minimum for the test. With 5 differences the smallest two-sided p is 2 / 2^5 = 0.0625."""

MAX_EXACT = 50
"""Up to this many differences p is exact; beyond, the normal approximation is within 0.001 of it."""


def midranks(x: Vector, tolerance: float = 0.0) -> Vector:
    """Ranks 1..n of `x`, shape (n,); values within `tolerance` of the next smaller value share their mean rank."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=-np.inf) > tolerance)
    sizes = np.diff(starts, append=len(x))
    ranks = np.empty(len(x))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def wilcoxon_p(differences: ArrayLike, *, scale: float = 0.0) -> PValue:
    """Two-sided signed-rank test of the hypothesis that differences are symmetric about zero (Wilcoxon 1945).

    Zeros are left out, as in Wilcoxon's paper; equal magnitudes share their mean rank. Up to 50 differences p is exact,
    including ties (dynamic programming over all sign patterns of the ranks). Beyond, it is a normal approximation with
    the variance of the tied ranks. scipy's `wilcoxon` is exact only without ties.

    Args:
        differences: shape (n,).
        scale: size of the numbers that were subtracted (default 0: that of the differences); magnitudes that differ by
            less than its rounding error are equal.

    Returns:
        p is None with fewer than 6 non-zero differences, if all are equal, or if one is not finite.
    """
    x = vector(differences)
    if why := why_no_test(x, scale):
        return PValue(None, why)
    tolerance = rounding(x, scale)
    x = x[np.abs(x) > tolerance]
    if len(x) < MIN_RANKS:
        why = f"the signed-rank test needs {MIN_RANKS} seeds on which the two differ; {there_are(len(x))}"
        return PValue(None, why)
    ranks = midranks(np.abs(x), tolerance)
    positive = float(ranks[x > 0].sum())
    smaller = min(positive, float(ranks.sum()) - positive)
    if len(x) <= MAX_EXACT:
        return PValue(min(1.0, 2 * _share_of_signs(ranks, smaller)), None)
    z = (smaller - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4)
    return PValue(min(1.0, 2 * float(ndtr(z))), None)


def _share_of_signs(ranks: Vector, largest: float) -> float:
    """Share of the 2^n sign patterns whose positive ranks sum to at most `largest`."""
    doubled = np.rint(2 * ranks).astype(np.intp)  # mean ranks are multiples of 1/2
    share = np.zeros(int(doubled.sum()) + 1)  # of the sign patterns by twice their rank sum
    share[0] = 1.0
    for rank in doubled:
        share[rank:] += share[:-rank]  # numpy handles the overlap
        share /= 2
    return float(share[: round(2 * largest) + 1].sum())


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float | None:
    """Cliff's delta, P(a > b) - P(a < b) over all pairs of values of `a` and `b`, in [-1, 1] (Cliff 1993).

    Args:
        a: shape (n,).
        b: shape (m,).

    Returns:
        None if `a` or `b` is empty, or if a value is not finite.
    """
    x, y = vector(a), vector(b)
    if not (len(x) and len(y) and is_finite(x) and is_finite(y)):
        return None
    y = np.sort(y)
    below, up_to = np.searchsorted(y, x, "left"), np.searchsorted(y, x, "right")
    return float((below + up_to - len(y)).sum() / (len(x) * len(y)))
