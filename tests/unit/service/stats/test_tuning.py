"""The expected best of a number of trials, and the range of good learning rates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import stats

RATES = [1e-4, 1e-3, 1e-2, 1e-1]


class TestExpectedBest:
    @pytest.mark.parametrize("higher", [True, False])
    def test_equals_the_mean_over_all_draws(self, higher):
        x = [0.3, 0.9, 0.5, 0.5, 0.1]
        best = max if higher else min
        expected = [np.mean([best(draw) for draw in itertools.combinations(x, k)]) for k in range(1, 6)]
        assert stats.expected_best(x, higher) == pytest.approx(expected)

    @pytest.mark.parametrize(("higher", "worst"), [(True, 0.2), (False, 0.8)])
    def test_diverged_trial_counts_as_the_worst(self, higher, worst):
        best = stats.expected_best([0.2, None, 0.8, math.nan, math.inf], higher)
        assert best == pytest.approx(stats.expected_best([0.2, worst, 0.8, worst, worst], higher))

    @pytest.mark.parametrize("values", [[], [None], [None, math.nan]])
    def test_empty_if_every_trial_diverged(self, values):
        assert stats.expected_best(values, True) == []

    def test_increases_from_mean_to_maximum_with_many_trials(self):
        x = np.random.default_rng(0).normal(size=500)
        best = stats.expected_best(x.tolist(), True)
        assert best[0] == pytest.approx(x.mean())
        assert best[-1] == pytest.approx(x.max())
        assert best == sorted(best)

    @given(st.lists(st.none() | st.floats(), max_size=9), st.booleans())
    def test_never_nan(self, values, higher):
        best = stats.expected_best(values, higher)
        assert all(math.isfinite(value) for value in best)
        assert len(best) in (0, len(values))


class TestGoodRange:
    def test_hand_computed(self):
        # Best 0.9 at 1e-2, floor 0.8: halfway from 0.7 at 1e-3, a quarter of the way down to 0.5 at 1e-1
        result = stats.good_range(RATES, [0.1, 0.7, 0.9, 0.5], 0.1, True)
        assert (result.low, result.high) == pytest.approx((10**-2.5, 10**-1.75))
        assert result.decades == pytest.approx(0.75)
        assert (result.open_low, result.open_high, result.cannot_say) == (False, False, None)

    def test_lower_is_better_and_any_order(self):
        result = stats.good_range([1e-2, 1e-4, 1e-1, 1e-3], [-0.9, -0.1, -0.5, -0.7], 0.1, False)
        assert result == stats.good_range(RATES, [0.1, 0.7, 0.9, 0.5], 0.1, True)

    def test_range_is_open_at_the_first_and_last_rate(self):
        result = stats.good_range(RATES, [0.85, 0.9, 0.9, 0.88], 0.1, True)
        assert (result.low, result.high, result.decades) == pytest.approx((1e-4, 1e-1, 3))
        assert (result.open_low, result.open_high) == (True, True)
        assert stats.good_range(RATES, [0.9, 0.5, 0.1, 0.1], 0.1, True).open_low

    def test_range_ends_before_a_diverged_trial(self):
        result = stats.good_range(RATES, [0.1, 0.9, 0.9, None], 0.1, True)
        assert result.high == pytest.approx(1e-2)
        assert not result.open_high

    def test_good_trial_beyond_a_bad_one_is_not_in_the_range(self):
        assert stats.good_range(RATES, [0.9, 0.1, 0.9, 0.9], 0.0, True).decades == pytest.approx(0)
        assert stats.good_range(RATES, [0.89, 0.1, 0.9, 0.9], 0.1, True).decades == pytest.approx(1.125)

    def test_trials_at_one_rate_are_averaged(self):
        doubled = stats.good_range([*RATES, 1e-2], [0.1, 0.7, 0.8, 0.5, 1.0], 0.1, True)
        assert doubled == stats.good_range(RATES, [0.1, 0.7, 0.9, 0.5], 0.1, True)
        assert stats.good_range([*RATES, 1e-1], [0.1, 0.7, 0.9, 0.9, None], 0.1, True).high == pytest.approx(1e-2)

    @pytest.mark.parametrize(
        ("lrs", "values", "tolerance", "reason"),
        [
            ([], [], 0.1, "3 rates; there are 0"),
            ([1e-3], [1], 0.1, "3 rates; there is 1"),
            ([1e-3, 1e-2, 1e-2], [1, 2, 3], 0.1, "3 rates; there are 2"),
            ([0, 1e-3, 1e-2], [1, 2, 3], 0.1, "not a positive number"),
            ([math.nan, 1e-3, 1e-2], [1, 2, 3], 0.1, "not a positive number"),
            ([1e-4, 1e-3, 1e-2], [1, 2, 3], -0.1, "tolerance"),
            ([1e-4, 1e-3, 1e-2], [1, 2, 3], math.nan, "tolerance"),
            ([1e-4, 1e-3, 1e-2], [None, math.nan, math.inf], 0.1, "every learning rate diverged"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, lrs, values, tolerance, reason):
        result = stats.good_range(lrs, values, tolerance, True)
        assert (result.low, result.high, result.decades) == (None, None, None)
        assert reason in result.cannot_say

    def test_raises_value_error_for_different_lengths(self):
        with pytest.raises(ValueError, match="1 learning rates do not match 2 values"):
            stats.good_range([1e-3], [1, 2], 0.1, True)

    @given(
        st.lists(st.tuples(st.floats(1e-9, 1e3) | st.floats(), st.none() | st.floats()), max_size=6),
        st.floats(0, 10) | st.floats(),
        st.booleans(),
    )
    def test_never_nan(self, check_invariants, trials, tolerance, higher):
        check_invariants(stats.good_range([lr for lr, _ in trials], [value for _, value in trials], tolerance, higher))
