"""The always-valid test: p values, intervals and degenerate input."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as reference

from service import stats

samples = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6)), max_size=25)
anything = st.lists(st.floats(), max_size=8)


def bayes_factor(x, effect, mean=0.0):
    """By quadrature: density of t under a normal prior on the standardized effect, divided by that without effect."""
    n = len(x)
    t = reference.ttest_1samp(x, mean).statistic
    joint, _ = integrate.quad(
        lambda d: reference.nct.pdf(t, n - 1, d * n**0.5) * reference.norm.pdf(d, 0, effect), -12, 12, limit=200
    )
    return joint / reference.t.pdf(t, n - 1)


class TestAnytime:
    @pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
    def test_p_is_one_over_the_largest_bayes_factor(self, effect):
        x = np.array([0.2, 1.9, 0.7, 1.4, 1.2, -0.1, 0.4, -0.9])
        factors = [bayes_factor(x[:n], effect) for n in range(2, 9)]
        largest = max(factors)
        assert largest > max(1, factors[-1])
        assert stats.anytime(x, effect=effect).p == pytest.approx(1 / largest, rel=1e-6)

    def test_interval_ends_where_the_bayes_factor_is_one_over_alpha(self):
        x = np.random.default_rng(4).normal(0.3, 1, 12)
        low, high = stats.anytime(x, alpha=0.1).interval
        inside = [max(bayes_factor(x[:n], 1.0, mean) for n in range(2, 13)) for mean in (low + 1e-6, high - 1e-6)]
        outside = [max(bayes_factor(x[:n], 1.0, mean) for n in range(2, 13)) for mean in (low - 1e-6, high + 1e-6)]
        assert max(inside) < 10 < min(outside)

    def test_few_differences_give_p_but_no_interval(self):
        result = stats.anytime([1.0, 2.0])
        assert result.difference == 1.5
        assert 0 < result.p <= 1
        assert result.interval is None
        assert "seeds are too few for an always-valid interval" in result.cannot_say

    def test_p_keeps_its_minimum(self):
        x = np.random.default_rng(0).normal(2, 1, 12)
        early, late = stats.anytime(x), stats.anytime([*x, -9.0, -9.0])
        assert late.p == early.p < 0.05
        assert late.difference < early.difference

    def test_drifting_differences_give_no_interval(self):
        result = stats.anytime([*np.random.default_rng(0).normal(0, 0.01, 30), *np.full(3000, 5.0)])
        assert (result.interval, result.cannot_say is None) == (None, False)
        assert "drift" in result.cannot_say
        assert result.p is not None

    @given(samples)
    def test_interval_and_p_never_grow_with_more_seeds(self, x):
        results = [stats.anytime(x[:n]) for n in range(2, len(x) + 1)]
        for before, after in pairwise(results):
            assert before.p is None or after.p <= before.p
            if before.interval and after.interval:
                assert before.interval[0] <= after.interval[0] <= after.interval[1] <= before.interval[1]

    @given(samples)
    def test_interval_excludes_zero_exactly_when_p_is_below_alpha(self, x):
        result = stats.anytime(x)
        if result.interval is not None and abs(result.p - 0.05) > 1e-9:
            low, high = result.interval
            assert (low > 0 or high < 0) == (result.p < 0.05)

    @given(samples, st.floats(0.01, 100))
    def test_p_does_not_depend_on_the_unit(self, x, unit):
        result, scaled = stats.anytime(x), stats.anytime([unit * value for value in x])
        if result.p is not None and scaled.p is not None:
            assert result.p == pytest.approx(scaled.p, rel=1e-6)

    @pytest.mark.parametrize(
        ("x", "difference", "reason"),
        [
            ([], None, "no shared seeds"),
            ([0.5], 0.5, "only one shared seed"),
            ([0.5] * 9, 0.5, "differences are all equal"),
            ([0.5, math.inf], None, "not finite"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, x, difference, reason):
        result = stats.anytime(x)
        assert (result.n, result.difference, result.interval, result.p) == (len(x), difference, None, None)
        assert reason in result.cannot_say

    def test_differences_within_rounding_of_scale_are_equal(self):
        x = [1e-9, 2e-9, 1e-9, 2e-9, 1e-9, 2e-9]
        assert stats.anytime(x).p < 1
        assert stats.anytime(x, scale=0.9).p is None

    @pytest.mark.parametrize(("alpha", "effect"), [(0, 1), (1, 1), (np.nan, 1), (0.05, 0), (0.05, np.inf)])
    def test_raises_value_error_for_alpha_or_effect_out_of_range(self, alpha, effect):
        with pytest.raises(ValueError, match="not"):
            stats.anytime([1, 2], alpha, effect)

    @given(anything, st.sampled_from([0.05, 1e-9, 1e-300, 0.999]), st.sampled_from([1.0, 1e-6, 1e6]))
    def test_never_nan(self, check_invariants, x, alpha, effect):
        check_invariants(stats.anytime(x, alpha, effect))
