"""Checks that all statistics share: one dimension, finite values, and variation beyond rounding."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]

Interval = tuple[float, float]

CONFIDENCE = 0.95
"""Default confidence level of intervals."""

RESOLUTION = float(np.finfo(np.float32).eps)
"""Metrics are computed in single precision: values with a smaller relative difference are equal."""

LARGEST, SMALLEST = 1e100, 1e-100
"""Beyond these magnitudes, squares overflow or underflow in double precision, and so does the variance."""

NOT_FINITE = "a value is not finite"


def vector(values: ArrayLike) -> Vector:
    """`values` as float64, shape (n,). Raises ValueError unless they have one dimension."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected one dimension, not shape {x.shape}")
    return x


def there_are(n: int) -> str:
    """The end of a reason that requires more than `n` items: `there is 1`, `there are 2`."""
    return f"there {'is' if n == 1 else 'are'} {n}"


def is_finite(x: Vector) -> bool:
    """Whether no value is NaN or larger than 1e100 in magnitude."""
    return bool((np.abs(x) <= LARGEST).all())


def rounding(x: Vector, scale: float = 0.0) -> float:
    """Size of the rounding error of `x`, or of numbers of size `scale` from which `x` was computed."""
    return max(RESOLUTION * max(float(np.abs(x).max()), scale), SMALLEST)


def is_constant(x: Vector, scale: float = 0.0) -> bool:
    """Whether the range of `x`, which must not be empty, is within its rounding error."""
    return bool(np.ptp(x) <= rounding(x, scale))


def size(*several: Vector) -> float:
    """Largest absolute value in any of the arrays; the `scale` of their differences."""
    return max((float(np.abs(x).max()) for x in several if len(x)), default=0.0)


def why_no_test(differences: Vector, scale: float = 0.0) -> str | None:
    """Reason why the hypothesis "the mean difference is zero" cannot be tested; None if it can.

    Args:
        differences: shape (n,).
        scale: size of the numbers that were subtracted (default 0: that of the differences).
    """
    if not len(differences):
        return "there are no shared seeds"
    if not is_finite(differences):
        return NOT_FINITE
    if len(differences) == 1:
        return "there is only one shared seed"
    if is_constant(differences, scale):
        return "the paired differences are all equal"
    return None
