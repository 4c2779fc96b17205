"""Two groups that ran on the same seeds: the paired t test, Holm's correction, and what else is worth knowing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.stats.ranks import cliffs_delta, wilcoxon_p
from service.stats.samples import t_interval, t_p
from service.stats.signs import PValue, sign_flip_p
from service.stats.values import NOT_FINITE, Interval, Vector, is_constant, is_finite, size, vector, why_no_test

FEWEST_FOR_SKEWNESS = 5

NOT_SKEWED = "cannot say, because the differences are not seen to be skewed, and only then it is done"

SKEWNESS_5_TO_7 = (1.2070, 1.2390, 1.2304)
"""|g1| that 5 % of normal samples of n = 5, 6, 7 exceed. Simulated, 20 million samples each."""


@dataclass(frozen=True)
class Paired:
    """Mean of `n` paired differences a - b, its t interval and the two-sided p of "no difference"."""

    n: int
    difference: float | None
    interval: Interval | None
    p: float | None
    cannot_say: str | None


@dataclass(frozen=True)
class PairedDetail:
    """Beyond the paired t test. `cannot_say` explains each None but those of the two tests.

    `sd` is that of the differences (ddof 1), `correlation` Pearson's over the pairs: what pairing bought. `skewed`:
    whether the differences are more skewed than 19 of 20 normal samples of their number, so that the t test is to be
    read with care; only then `p_permutation` is given, which takes a thousand times as long. Both tests have their
    own reasons. `cliffs_delta` compares the groups without pairing.
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
    """Paired t test of `a` against `b`, both of shape (n,), where a[i] and b[i] belong together.

    Raises ValueError for arrays of different lengths.
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
    """What the t test of `a` against `b`, both of shape (n,), does not show: spread, shape, and tests by rank and sign.

    The correlation is None where one side does not vary, `skewed` below five pairs. Raises ValueError for arrays of
    different lengths.
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
    reasons = ["one side does not vary (correlation)"] * (correlation is None)
    reasons += [f"skewness needs {FEWEST_FOR_SKEWNESS} pairs"] * (skewed is None)
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
        cannot_say=f"cannot say, because {' and '.join(reasons)}" if reasons else None,
    )


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


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Vector, Vector]:
    x, y = vector(a), vector(b)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values cannot be paired with {len(y)}")
    return x, y


def _correlation(x: Vector, y: Vector) -> float | None:
    if len(x) < 2 or is_constant(x) or is_constant(y):
        return None
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # so that no product overflows or vanishes
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _is_skewed(x: Vector) -> bool | None:
    if len(x) < FEWEST_FOR_SKEWNESS:
        return None
    deviations = x - x.mean()
    deviations /= np.abs(deviations).max()
    g1 = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    return bool(abs(g1) > skewness_bound(len(x)))


def skewness_bound(n: int) -> float:
    """The sample skewness |g1| that 5 % of normal samples of `n` values exceed.

    For n = 5, 6, 7 simulated; from 8 on D'Agostino's approximation (1970, Biometrika 57), the one of `skewtest`.
    """
    if n < 8:
        return SKEWNESS_5_TO_7[n - FEWEST_FOR_SKEWNESS]
    kurtosis = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = -1 + (2 * (kurtosis - 1)) ** 0.5
    z = 1.959964 * (0.5 * np.log(w2)) ** 0.5
    return float(np.sinh(z) * (2 / (w2 - 1)) ** 0.5 * (6 * (n - 2) / ((n + 1) * (n + 3))) ** 0.5)
