"""Two groups with the same seeds: the paired t test and its diagnostics, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.checks import NOT_FINITE, Interval, Vector, is_constant, is_finite, size, vector, why_no_test
from service.stats.ranks import cliffs_delta, wilcoxon_p
from service.stats.sample import t_interval, t_p
from service.stats.sign_tests import PValue, sign_flip_p

MIN_FOR_SKEWNESS = 5

NOT_SKEWED = "the permutation test is only computed if the differences are skewed"

SKEWNESS_5_TO_7 = (1.2070, 1.2390, 1.2304)
"""|g1| that 5 % of normal samples of n = 5, 6, 7 exceed, simulated with 20 million samples each."""


@dataclass(frozen=True)
class Paired:
    """Mean of `n` paired differences a - b, its 95 % t interval, and the two-sided p of the paired t test."""

    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    cannot_say: str | None


@dataclass(frozen=True)
class PairedDetail:
    """Diagnostics of a paired t test, and tests with fewer assumptions.

    `sd`: standard deviation of the differences (ddof 1). `correlation`: Pearson's, over the pairs; a high correlation
    makes pairing effective. `skewed`: whether the differences are more skewed than 95 % of normal samples of their
    size, in which case the t test needs caution. `p_permutation` is given only then, because it takes a thousand times
    as long. `cliffs_delta` compares the groups without pairing. `permutation_cannot_say` and `wilcoxon_cannot_say` give
    the reasons of their tests, `cannot_say` those of all other Nones.
    """

    sd: float | None
    correlation: float | None
    skewed: bool | None
    p_permutation: float | None
    permutation_cannot_say: str | None
    p_wilcoxon: float | None
    wilcoxon_cannot_say: str | None
    cliffs_delta: float | None
    cannot_say: str | None


def paired_difference(a: ArrayLike, b: ArrayLike) -> Paired:
    """Paired t test of the hypothesis that the mean of a - b is zero.

    Args:
        a: shape (n,).
        b: shape (n,); a[i] and b[i] are a pair.

    Raises:
        ValueError: if the lengths differ.
    """
    x, y = _pairs(a, b)
    if not (is_finite(x) and is_finite(y)):
        return Paired(len(x), None, None, None, NOT_FINITE)
    differences = x - y
    mean = float(differences.mean()) if len(x) else None
    why = why_no_test(differences, scale=size(x, y))
    if why or mean is None:
        return Paired(len(x), mean, None, None, why)
    sd = float(differences.std(ddof=1))
    return Paired(len(x), mean, t_interval(mean, sd, len(x)), t_p(mean, sd, len(x)), None)


def paired_detail(a: ArrayLike, b: ArrayLike) -> PairedDetail:
    """Spread, correlation and skewness of paired differences, and tests based on ranks and signs.

    Args:
        a: shape (n,).
        b: shape (n,); a[i] and b[i] are a pair.

    Returns:
        The correlation is None if `a` or `b` does not vary, `skewed` with fewer than 5 pairs.

    Raises:
        ValueError: if the lengths differ.
    """
    x, y = _pairs(a, b)
    if not (is_finite(x) and is_finite(y)):
        return PairedDetail(None, None, None, None, NOT_FINITE, None, NOT_FINITE, None, NOT_FINITE)
    differences, scale = x - y, size(x, y)
    delta = cliffs_delta(x, y)
    correlation = _correlation(x, y)
    if why := why_no_test(differences, scale):
        sd = float(differences.std(ddof=1)) if len(x) > 1 else None
        return PairedDetail(sd, correlation, None, None, why, None, why, delta, why)
    signed_rank = wilcoxon_p(differences, scale=scale)
    skewed = _is_skewed(differences)
    reasons = ["no correlation, because one of the two does not vary"] * (correlation is None)
    reasons += [f"estimating skewness needs {MIN_FOR_SKEWNESS} seeds"] * (skewed is None)
    flips = sign_flip_p(differences, scale=scale) if skewed else PValue(None, NOT_SKEWED)
    return PairedDetail(
        sd=float(differences.std(ddof=1)),
        correlation=correlation,
        skewed=skewed,
        p_permutation=flips.p,
        permutation_cannot_say=flips.cannot_say,
        p_wilcoxon=signed_rank.p,
        wilcoxon_cannot_say=signed_rank.cannot_say,
        cliffs_delta=delta,
        cannot_say=" and ".join(reasons) or None,
    )


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of p values (1979).

    Args:
        p: p values; None for a hypothesis that was not tested, which does not count.

    Returns:
        In the order of `p`, the smallest family-wise error rate at which each hypothesis is rejected, or None.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = largest
    return adjusted


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Vector, Vector]:
    x, y = vector(a), vector(b)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values cannot be paired with {len(y)}")
    return x, y


def _correlation(x: Vector, y: Vector) -> float | None:
    if len(x) < 2 or is_constant(x) or is_constant(y):
        return None
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # so that no product overflows or underflows
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _is_skewed(x: Vector) -> bool | None:
    if len(x) < MIN_FOR_SKEWNESS:
        return None
    deviations = x - x.mean()
    deviations /= np.abs(deviations).max()
    g1 = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    return bool(abs(g1) > skewness_bound(len(x)))


def skewness_bound(n: int) -> float:
    """The sample skewness |g1| that 5 % of normal samples of `n` values exceed, for n >= 5.

    Simulated for n = 5, 6, 7. From n = 8 on, D'Agostino's approximation (1970, Biometrika 57), as in
    `scipy.stats.skewtest`, which takes 18 times as long and would triple the time of `paired_detail`.
    """
    if n < 8:
        return SKEWNESS_5_TO_7[n - MIN_FOR_SKEWNESS]
    kurtosis = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = -1 + (2 * (kurtosis - 1)) ** 0.5
    z = 1.959964 * (0.5 * np.log(w2)) ** 0.5
    return float(np.sinh(z) * (2 / (w2 - 1)) ** 0.5 * (6 * (n - 2) / ((n + 1) * (n + 3))) ** 0.5)
