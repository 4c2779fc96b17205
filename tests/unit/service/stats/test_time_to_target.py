"""Time to a target: medians with censored misses, and paired comparisons by seed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats

hits = st.lists(st.none() | st.floats(), max_size=12)


class TestMedianToTarget:
    @pytest.mark.parametrize(
        ("hits", "median"),
        [
            ([], None),
            ([None], None),
            ([300], 300),
            ([100, 300, 200], 200),
            ([100, 300, 200, None], 250),  # the miss is the largest of four
            ([100, 300, None, None, 200], 300),
            ([100, None], None),  # half missed
            ([100, 200, None, None], None),
            ([100, None, None], None),
        ],
    )
    def test_misses_are_censored(self, hits, median):
        assert stats.median_to_target(hits) == median

    @given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9))
    def test_equals_the_median_without_misses(self, hits):
        assert stats.median_to_target(hits) == float(np.median(hits))

    @given(hits)
    def test_never_nan(self, hits):
        median = stats.median_to_target(hits)
        assert median is None or math.isfinite(median)


class TestPairedToTarget:
    def test_counts_wins_and_ties_and_computes_p(self):
        # Sign test by hand: 7 of 8 decided seeds, 2 (C(8,0) + C(8,1)) / 2^8 = 18 / 256
        a = [10, 20, 30, 40, 50, 60, 70, None, None, 5]
        b = [11, 21, 31, 41, 51, 61, None, 80, None, 5]
        result = stats.paired_to_target(a, b)
        assert (result.n, result.a_first, result.b_first, result.ties) == (10, 7, 1, 2)
        assert result.p == pytest.approx(18 / 256)

    @pytest.mark.parametrize(("wins", "losses"), [(6, 0), (3, 3), (4, 9), (30, 12), (0, 1100)])
    def test_agrees_with_scipy(self, wins, losses):
        result = stats.paired_to_target([1] * wins + [2] * losses, [2] * wins + [1] * losses)
        assert result.p == pytest.approx(reference.binomtest(wins, wins + losses).pvalue, rel=1e-9)

    def test_p_needs_six_seeds_without_a_tie(self):
        assert stats.paired_to_target([1] * 6, [None] * 6).p == pytest.approx(2 / 2**6)
        result = stats.paired_to_target([1] * 5 + [None] * 3, [2] * 5 + [None] * 3)
        assert (result.n, result.a_first, result.b_first, result.ties, result.p) == (8, 5, 0, 3, None)
        assert result.cannot_say == "the sign test needs 6 seeds without a tie; there are 5"

    def test_raises_value_error_for_different_lengths(self):
        with pytest.raises(ValueError, match="1 runs cannot be paired with 2"):
            stats.paired_to_target([1], [1, 2])

    @given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.floats()), max_size=12))
    def test_swapping_the_groups_mirrors_the_result(self, check_invariants, rows):
        a, b = [row[0] for row in rows], [row[1] for row in rows]
        forward, back = stats.paired_to_target(a, b), stats.paired_to_target(b, a)
        check_invariants(forward)
        assert (forward.a_first, forward.b_first, forward.p) == (back.b_first, back.a_first, back.p)
        assert forward.a_first + forward.b_first + forward.ties == forward.n == len(rows)
