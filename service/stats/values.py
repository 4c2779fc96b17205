"""What every statistic asks of its numbers: one dimension, finite, and not all the same."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]

Interval = tuple[float, float]

CONFIDENCE = 0.95
"""Level of every interval, where no other is asked for."""

RESOLUTION = float(np.finfo(np.float32).eps)
"""Metrics are computed in single precision: values that differ by a smaller share of their size are equal."""

LARGEST, SMALLEST = 1e100, 1e-100
"""Beyond these the squares of double precision overflow or vanish, and with them the spread."""

NOT_FINITE = "cannot say, because a value is not finite"


def vector(values: ArrayLike) -> Vector:
    """`values` as doubles, shape (n,). Raises ValueError for any other number of dimensions."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected one dimension, not shape {x.shape}")
    return x


def here(n: int) -> str:
    """How many there are, where more are needed."""
    return f"here {'is' if n == 1 else 'are'} {n}"


def is_finite(x: Vector) -> bool:
    """Whether every value can be computed with: neither NaN nor beyond 1e100."""
    return bool((np.abs(x) <= LARGEST).all())


def rounding(x: Vector, scale: float = 0.0) -> float:
    """The size of the rounding in `x`, or in numbers as large as `scale` that `x` was computed from."""
    return max(RESOLUTION * max(float(np.abs(x).max()), scale), SMALLEST)


def is_constant(x: Vector, scale: float = 0.0) -> bool:
    """Whether `x`, not empty, varies by no more than its rounding."""
    return bool(np.ptp(x) <= rounding(x, scale))


def size(*several: Vector) -> float:
    """The largest absolute value in any of the arrays: the `scale` of their differences."""
    return max((float(np.abs(x).max()) for x in several if len(x)), default=0.0)


def why_no_test(differences: Vector, scale: float = 0.0) -> str | None:
    """Why no test of "the mean difference is zero" is possible; None where one is.

    `scale`: the size of the numbers that the differences were computed from (0: take the differences' own).
    """
    if not len(differences):
        return "cannot say, because there are no pairs"
    if not is_finite(differences):
        return NOT_FINITE
    if len(differences) == 1:
        return "cannot say, because there is only one pair"
    if is_constant(differences, scale):
        return "cannot say, because every pair has the same difference"
    return None
