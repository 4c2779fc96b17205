"""Tests that need only symmetry: flip the signs of the differences, or count them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from service.stats.values import Vector, rounding, vector, why_no_test

EXACT = 12
"""Up to this many differences all 2^n sign patterns are tried: 4,096 at most."""

FLIPS = 10_000
"""Random sign patterns beyond: the standard error of p at 0.05 is 0.002."""

BLOCK = 1 << 20
"""Signs held at a time: 8 MiB."""


@dataclass(frozen=True)
class PValue:
    """The two-sided p of a test; `cannot_say` explains the None."""

    p: float | None
    cannot_say: str | None


def sign_flip_p(differences: ArrayLike, *, scale: float = 0.0, rng: int | np.random.Generator = 0) -> PValue:
    """Two-sided permutation test that `differences`, shape (n,), are symmetric about zero; the statistic is the mean.

    Exact up to n = 12, from all 2^n signs: the smallest p is 2 / 2^n, so 0.0625 at n = 5. Beyond, 10,000 random
    signs, and p = (1 + as extreme) / (1 + tried), which keeps the level (Phipson & Smyth 2010). The test is Fisher's
    (1935). `scale`: size of the numbers that were subtracted (default 0: the differences' own), whose rounding does
    not count. `rng`: a seed or a generator. None: fewer than two values, all equal, or one not finite.
    """
    x = vector(differences)
    if why := why_no_test(x, scale):
        return PValue(None, why)
    extreme = abs(float(x.sum())) - len(x) * rounding(x, scale)
    if len(x) <= EXACT:
        return PValue(float((np.abs(_all_signs(len(x)) @ x) >= extreme).mean()), None)
    generator = np.random.default_rng(rng)
    rows = max(1, BLOCK // len(x))
    reached = 0
    for start in range(0, FLIPS, rows):
        signs = 2.0 * generator.integers(0, 2, (min(rows, FLIPS - start), len(x))) - 1
        reached += int((np.abs(signs @ x) >= extreme).sum())
    return PValue((1 + reached) / (1 + FLIPS), None)


@lru_cache(maxsize=EXACT)
def _all_signs(n: int) -> Vector:
    """Every pattern of n signs whose first is +, shape (2^(n-1), n): the mirrored half gives the same |sum|."""
    bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)
    return np.asarray(1.0 - 2.0 * (bits & 1))


def sign_test_p(wins: int, losses: int) -> float:
    """Exact two-sided sign test: `wins` against `losses` as fair coins, ties left out. 1 without any."""
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))
