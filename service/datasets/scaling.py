"""Scaling of a table's columns, in 64 bits, to the 32 bits of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float32).max)
_PART_ROWS = 65_536
"""Rows scaled at a time, so that no second copy of the table in 64 bits is made."""


@dataclass(frozen=True)
class ColumnScaling:
    """Exponent, center, mean and standard deviation (D,) of each column.

    A column is divided by the power of two above its largest absolute value, which is exact and keeps the moments
    finite over the whole range of 64-bit numbers. Its mean is that of the differences to `center`: next to a large
    mean, as of times in seconds, a single number could not hold it to the precision of the differences.
    """

    exponent: NDArray[np.int64]
    center: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Self:
        """The moments of rows (N, D)."""
        moments = [_moments(rows[:, column]) for column in range(rows.shape[1])]  # a single column in 64 bits at a time
        exponent, *others = zip(*moments, strict=True)
        return cls(np.array(exponent, np.int64), *(np.array(values, np.float64) for values in others))

    def apply(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """(rows - mean) / deviation of each column, as float32; constant columns become 0."""
        scaled = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), _PART_ROWS):
            part = slice(start, start + _PART_ROWS)
            unit = np.ldexp(rows[part].astype(np.float64), -self.exponent)
            with np.errstate(over="ignore"):  # by numbers far beyond those of the moments
                scaled[part] = np.clip((unit - self.center - self.mean) / self.deviation, -_LARGEST, _LARGEST)
        return scaled


def _moments(column: NDArray[Any]) -> tuple[int, float, float, float]:
    """Exponent, center, mean and deviation of a column (N,)."""
    values = column.astype(np.float64)
    exponent = int(np.frexp(np.abs(values).max())[1])
    unit = np.ldexp(values, -exponent)
    if unit.min() == unit.max():  # rounding of the mean can give a constant a deviation
        return exponent, float(unit[0]), 0.0, 1.0
    center = float(unit.mean())
    unit -= center
    return exponent, center, float(unit.mean()), float(unit.std())
