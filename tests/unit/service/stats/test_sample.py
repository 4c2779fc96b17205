"""Descriptions of a sample: mean, standard deviation and t interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats

values = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6))
samples = st.lists(values, min_size=0, max_size=12)
anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6)


class TestDescribe:
    def test_hand_computed(self):
        # mean 3, squared deviations 4 + 1 + 0 + 1 + 4 = 10, sd sqrt(10 / 4), t(4, 0.975) = 2.776 from the printed table
        result = stats.describe([1, 2, 3, 4, 5])
        assert (result.n, result.mean) == (5, 3.0)
        assert result.sd == pytest.approx(math.sqrt(2.5))
        half = 2.776 * math.sqrt(2.5) / math.sqrt(5)
        assert result.interval == pytest.approx((3 - half, 3 + half), abs=1e-3)
        assert result.cannot_say is None

    @pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
    def test_agrees_with_scipy(self, n):
        x = np.random.default_rng(n).normal(0.9, 0.01, n)
        result = stats.describe(x)
        expected = reference.t.interval(0.95, n - 1, loc=x.mean(), scale=reference.sem(x))
        assert result.interval == pytest.approx(expected, rel=1e-12)
        assert result.sd == pytest.approx(reference.tstd(x), rel=1e-12)

    @pytest.mark.parametrize(
        ("x", "mean", "sd", "reason"),
        [
            ([], None, None, "no run has a value"),
            ([0.5], 0.5, None, "only one value"),
            ([0.5, 0.5, 0.5], 0.5, 0.0, "all values are equal"),
            ([0.5, math.nan], None, None, "not finite"),
            ([0.5, math.inf], None, None, "not finite"),
            ([0.5, 1e308], None, None, "not finite"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, x, mean, sd, reason):
        result = stats.describe(x)
        assert (result.n, result.mean, result.sd, result.interval) == (len(x), mean, sd, None)
        assert result.cannot_say[0].islower()  # a clause, to follow "because" or a colon
        assert reason in result.cannot_say

    def test_values_of_equal_single_precision_are_equal(self):
        x = np.float64([0.9, np.nextafter(np.float32(0.9), np.float32(1))])
        assert stats.describe(x).interval is None

    @given(samples)
    def test_interval_contains_the_mean(self, x):
        result = stats.describe(x)
        assert (result.interval is None) == (result.cannot_say is not None)
        if result.interval is not None:
            assert result.interval[0] < result.mean < result.interval[1]

    @given(anything)
    def test_never_nan(self, check_invariants, x):
        check_invariants(stats.describe(x))

    def test_raises_value_error_for_two_dimensions(self):
        with pytest.raises(ValueError, match="one dimension"):
            stats.describe([[1.0, 2.0]])
