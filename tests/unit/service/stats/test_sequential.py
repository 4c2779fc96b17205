"""The group-sequential test: looks, stopping, p values and intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats

LOOKS = (5, 10, 20)
samples = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 6)), max_size=22)


class TestGroupSequential:
    @pytest.mark.parametrize(("n", "look"), [(5, 0), (7, 0), (10, 1), (19, 1), (20, 2), (30, 2)])
    def test_uses_the_last_complete_look(self, n, look):
        x = np.random.default_rng(1).normal(0.05, 1, n)
        result = stats.group_sequential(x, LOOKS)
        n_used = LOOKS[look]
        assert (result.n, result.look, result.crossed) == (n_used, look, False)
        assert result.difference == pytest.approx(x[:n_used].mean())
        level = stats.nominal_levels(LOOKS)[look]
        expected = reference.t.interval(1 - level, n_used - 1, loc=result.difference, scale=reference.sem(x[:n_used]))
        assert result.interval == pytest.approx(expected, rel=1e-9)

    def test_stops_at_the_first_crossing(self):
        x = np.random.default_rng(2).normal(5, 1, 20)
        result = stats.group_sequential(x, LOOKS)
        assert (result.n, result.look, result.crossed) == (5, 0, True)
        assert result.p <= 0.05
        assert result == stats.group_sequential([*x[:5], *[-1000.0] * 15], LOOKS)

    @given(samples)
    def test_crosses_exactly_when_p_is_at_most_alpha_and_the_interval_excludes_zero(self, x):
        result = stats.group_sequential(x, LOOKS)
        if result.interval is not None:
            low, high = result.interval
            assert result.crossed == (result.p <= 0.05)
            if abs(result.p - 0.05) > 1e-9:
                assert result.crossed == (low > 0 or high < 0)

    @pytest.mark.parametrize("seed", range(5))
    def test_p_is_the_smallest_alpha_that_crosses(self, seed):
        x = np.random.default_rng(seed).normal(0.5, 1, 20)
        p = stats.group_sequential(x, LOOKS, alpha=1e-6).p  # does not stop early
        assert 1e-4 < p < 0.9
        assert stats.group_sequential(x, LOOKS, alpha=1.003 * p).crossed
        assert not stats.group_sequential(x, LOOKS, alpha=p / 1.003).crossed

    def test_p_never_rises_at_later_looks(self):
        x = np.random.default_rng(3).normal(0.5, 1, 20)
        p = [stats.group_sequential(x[:n], LOOKS, alpha=1e-6).p for n in LOOKS]
        assert p[0] >= p[1] >= p[2]

    @pytest.mark.parametrize(
        ("x", "n", "look", "reason"),
        [
            ([], 0, None, "first look needs 5 shared seeds; there are 0"),
            ([1, 2, 3, 4], 0, None, "first look needs 5 shared seeds; there are 4"),
            ([0.5] * 12, 10, 1, "differences are all equal"),
            ([1, 2, 3, 4, math.nan, 6], 5, 0, "not finite"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, x, n, look, reason):
        result = stats.group_sequential(x, LOOKS)
        assert (result.n, result.look, result.interval, result.p, result.crossed) == (n, look, None, None, False)
        assert reason in result.cannot_say

    def test_cannot_say_without_looks(self):
        assert "no look is planned" in stats.group_sequential([1, 2, 3], ()).cannot_say

    def test_ignores_differences_after_the_last_complete_look(self):
        assert stats.group_sequential([1, 2, -3, 4, 5, math.nan], LOOKS).p is not None

    def test_skips_a_look_without_variation(self):
        result = stats.group_sequential([0.0] * 5 + [1.0, 2.0, 3.0, 2.5, 1.5], LOOKS)
        assert (result.n, result.look) == (10, 1)
        assert result.p is not None

    def test_differences_within_rounding_of_scale_are_equal(self):
        x = [1e-9, 1.1e-9, 1e-9, 1.1e-9, 1e-9]
        assert stats.group_sequential(x, LOOKS).crossed
        assert stats.group_sequential(x, LOOKS, scale=0.9).p is None

    @given(st.lists(st.floats(), max_size=12), st.sampled_from([0.05, 1e-12, 0.999]))
    def test_never_nan(self, check_invariants, x, alpha):
        check_invariants(stats.group_sequential(x, (2, 5, 9), alpha))
