"""Thinning of curves: the ends, extremes and non-finite values stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.metrics.read import Curve, thin


def curve(values):
    steps = np.arange(1, len(values) + 1)
    return Curve(steps, np.asarray(values, float), steps * 0.1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(4, 50))
def test_thinned_curve_keeps_ends_and_extremes(values, max_points):
    whole = curve(values)
    thinned = thin(whole, max_points)
    assert len(thinned.steps) <= max_points
    assert (np.diff(thinned.steps) > 0).all()
    assert {thinned.steps[0], thinned.steps[-1]} == {1, len(values)}
    assert thinned.values.min() == whole.values.min()
    assert thinned.values.max() == whole.values.max()
    np.testing.assert_array_equal(thinned.values, whole.values[thinned.steps - 1])
    np.testing.assert_array_equal(thinned.wall_seconds, whole.wall_seconds[thinned.steps - 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_thinned_curve_keeps_non_finite_value(bad):
    values = np.linspace(0, 1, 1000)
    values[500] = bad
    assert not np.isfinite(thin(curve(values), 10).values).all()


def test_short_curve_is_unchanged():
    whole = curve([1, 2, 3])
    assert thin(whole, 4) is whole
