"""Columns that identify a row rather than describe it."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

MANY = 50
"""Number of rows from which whole numbers are unlikely to differ in all of them by chance."""
_NAME = re.compile(
    r"(unnamed: \d+|index|idx|_?id|uuid|guid|row|row[ _]?(id|number|num|index)|__index_level_\d+__"
    r"|.+[ _-](id|uuid|guid)|(id|uuid|guid)[ _-].+)"
)


def is_named(column: str) -> bool:
    """Whether a column has a name of identifiers, such as `id`, `customer_id`, `uuid` or `Unnamed: 0`."""
    return _NAME.fullmatch(column.strip().casefold()) is not None


def are_numbers_of_rows(values: NDArray[np.float64]) -> bool:
    """Whether the values are consecutive, or many whole numbers of which no two are equal."""
    steps = np.diff(values)
    if steps[0] != 0 and (steps == steps[0]).all():
        return True
    return len(values) >= MANY and are_distinct(values)


def are_distinct(values: NDArray[np.float64]) -> bool:
    """Whether the values are whole numbers of which no two are equal."""
    return bool((values == np.rint(values)).all()) and len(np.unique(values)) == len(values)
