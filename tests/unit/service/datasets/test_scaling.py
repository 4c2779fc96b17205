"""Scaling of columns in 64 bits."""

from __future__ import annotations

import numpy as np
import pytest

from service.datasets.scaling import ColumnScaling

ROWS = np.arange(100.0)


@pytest.mark.parametrize(
    "column",
    [
        *(ROWS, -ROWS, ROWS * 1e-320, ROWS * 1e-40, ROWS * 1.8e306, ROWS + 1.7e9, ROWS.astype(np.int64) + 2**52),
        np.where(ROWS < 50, -1.7e308, 1.7e308),
        np.where(ROWS < 50, 5e-324, 0),
    ],
)
def test_standardizes_any_range(column: np.ndarray) -> None:
    scaled = ColumnScaling.of(column[:, None]).apply(column[:, None])
    assert scaled.dtype == np.float32
    assert abs(scaled.mean(dtype=np.float64)) < 1e-6
    assert scaled.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert len(np.unique(scaled)) == len(np.unique(column))


@pytest.mark.parametrize("value", [0, 0.1, -1e308, 5e-324])
def test_constant_columns_become_zero(value: float) -> None:
    column = np.full((999, 1), value)
    assert not ColumnScaling.of(column).apply(column).any()


def test_scales_other_rows_by_the_given_moments() -> None:
    scaled = ColumnScaling.of(np.array([[0.0], [2.0]])).apply(np.array([[1.0], [3.0], [5.0]]))
    assert scaled.ravel().tolist() == [0, 2, 4]
