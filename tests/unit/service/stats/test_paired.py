"""Paired differences: t test, details of the pairs, and Holm's correction."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats
from service.stats.paired import skewness_bound
from service.stats.ranks import cliffs_delta

values = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6))
pairs = st.lists(st.tuples(values, values), min_size=0, max_size=12)
probabilities = st.lists(st.none() | st.floats(0, 1), max_size=12)
anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8)

SLEEP_A = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
SLEEP_B = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
"""Student (1908): additional hours of sleep with two drugs."""


class TestPairedDifference:
    def test_equals_the_published_results_for_student_sleep_data(self):
        # Student (1908), the sleep data: mean difference 1.58, sd 1.230, t = 4.0621 with 9 df, p = 0.002833
        result = stats.paired_difference(SLEEP_A, SLEEP_B)
        assert result.n == 10
        assert result.difference == pytest.approx(1.58)
        assert result.p == pytest.approx(0.002833, abs=5e-7)
        assert result.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)

    @pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
    def test_agrees_with_scipy(self, n):
        generator = np.random.default_rng(n)
        a, b = generator.normal(0.9, 0.02, n), generator.normal(0.89, 0.01, n)
        result, expected = stats.paired_difference(a, b), reference.ttest_rel(a, b)
        assert result.p == pytest.approx(expected.pvalue, rel=1e-10)
        interval = expected.confidence_interval(0.95)
        assert result.interval == pytest.approx((interval.low, interval.high), rel=1e-10)

    @pytest.mark.parametrize(
        ("a", "b", "difference", "reason"),
        [
            ([], [], None, "no shared seeds"),
            ([0.5], [0.25], 0.25, "only one shared seed"),
            ([0.5, 0.5], [0.5, 0.5], 0.0, "differences are all equal"),
            ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], 0.1, "differences are all equal"),
            ([0.5, math.nan], [0.1, 0.2], None, "not finite"),
            ([0.5, 0.4], [-math.inf, 0.2], None, "not finite"),
            ([1e-300, 0.0], [0.0, 0.0], 0.0, "differences are all equal"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, a, b, difference, reason):
        result = stats.paired_difference(a, b)
        assert (result.n, result.interval, result.p) == (len(a), None, None)
        assert result.difference == (None if difference is None else pytest.approx(difference))
        assert result.cannot_say[0].islower()  # a clause, to follow "because" or a colon
        assert reason in result.cannot_say

    def test_raises_value_error_for_different_lengths(self):
        with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
            stats.paired_difference([1, 2], [1])

    @given(pairs)
    def test_swapping_the_groups_changes_only_the_sign(self, rows):
        a, b = [row[0] for row in rows], [row[1] for row in rows]
        forward, back = stats.paired_difference(a, b), stats.paired_difference(b, a)
        assert forward.p == back.p
        if forward.interval is not None:
            assert back.interval == (-forward.interval[1], -forward.interval[0])
            assert back.difference == -forward.difference

    @given(pairs)
    def test_interval_excludes_zero_exactly_when_p_is_below_5_percent(self, rows):
        result = stats.paired_difference([row[0] for row in rows], [row[1] for row in rows])
        if result.p is not None and abs(result.p - 0.05) > 1e-9:
            low, high = result.interval
            assert (low > 0 or high < 0) == (result.p < 0.05)

    @given(anything, anything)
    def test_never_nan(self, check_invariants, a, b):
        n = min(len(a), len(b))
        check_invariants(stats.paired_difference(a[:n], b[:n]))


class TestPairedDetail:
    def test_equals_the_published_results_for_student_sleep_data(self):
        # Published for these data: sd 1.230, r = 0.795, Wilcoxon W = 45 of 9 differences with one zero
        detail = stats.paired_detail(SLEEP_A, SLEEP_B)
        assert detail.sd == pytest.approx(1.230, abs=5e-4)
        assert detail.correlation == pytest.approx(0.7952, abs=5e-5)
        assert detail.p_wilcoxon == pytest.approx(2 / 2**9)  # all nine have the same sign
        assert detail.p_permutation == pytest.approx(2 * 2 / 2**10)  # the zero counts with either sign
        assert detail.cliffs_delta == cliffs_delta(SLEEP_A, SLEEP_B)
        assert detail.cannot_say is detail.wilcoxon_cannot_say is None

    @pytest.mark.parametrize("n", [5, 8, 30])
    def test_agrees_with_scipy(self, n):
        generator = np.random.default_rng(n)
        a = generator.normal(0.9, 0.02, n)
        b = 0.5 * a + generator.normal(0, 0.01, n)
        detail = stats.paired_detail(a, b)
        assert detail.correlation == pytest.approx(reference.pearsonr(a, b).statistic, rel=1e-10)
        assert detail.sd == pytest.approx(reference.tstd(a - b), rel=1e-10)

    @pytest.mark.parametrize("n", [8, 12, 50])
    def test_skewed_exactly_when_scipy_skewtest_rejects(self, n):
        outcomes = set()
        for seed in range(60):
            generator = np.random.default_rng(seed)
            x = generator.exponential(size=n) if seed % 2 else generator.normal(size=n)
            skewed = stats.paired_detail(x, np.zeros(n)).skewed
            assert skewed == (reference.skewtest(x).pvalue < 0.05)
            outcomes.add(skewed)
        assert outcomes == {False, True}

    @pytest.mark.parametrize("n", [5, 6, 7])
    def test_skewness_bound_below_8_is_that_of_normal_samples(self, n):
        x = np.random.default_rng(n).normal(size=(200_000, n))
        share = np.mean(np.abs(reference.skew(x, axis=1)) > skewness_bound(n))
        assert share == pytest.approx(0.05, abs=0.002)  # four standard errors

    @pytest.mark.parametrize(
        ("a", "b", "missing", "reason"),
        [
            ([], [], {"sd", "correlation", "skewed", "p_permutation", "p_wilcoxon", "cliffs_delta"}, "no shared seeds"),
            ([0.5], [0.1], {"sd", "correlation", "skewed", "p_permutation", "p_wilcoxon"}, "one shared seed"),
            ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], {"skewed", "p_permutation", "p_wilcoxon"}, "differences are all equal"),
            (
                [1, 2, 4],
                [2, 2, 2],
                {"correlation", "skewed", "p_permutation", "p_wilcoxon"},
                "does not vary and estimating skewness needs 5 seeds",
            ),
            (
                [1, 2, 4, 8, 0, 3],
                [2] * 6,
                {"correlation", "p_permutation", "p_wilcoxon"},
                "one of the two does not vary",
            ),
            ([1, 2, 4, 8, 0, 3], [2, 1, 5, 6, 2, 9], {"p_permutation"}, None),
            ([1, 1, 2, 1, 1, 90], [2, 3, 1, 0, 2, 9], set(), None),
            (
                [0.5, math.nan],
                [0.1, 0.2],
                {"sd", "correlation", "skewed", "p_permutation", "p_wilcoxon", "cliffs_delta"},
                "not finite",
            ),
        ],
    )
    def test_every_none_has_a_reason(self, a, b, missing, reason):
        detail = vars(stats.paired_detail(a, b))
        assert {name for name, value in detail.items() if value is None and "cannot" not in name} == missing
        assert (detail["p_wilcoxon"] is None) == (detail["wilcoxon_cannot_say"] is not None)
        assert reason is None or reason in detail["cannot_say"]
        assert reason is not None or detail["cannot_say"] is None

    def test_raises_value_error_for_different_lengths(self):
        with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
            stats.paired_detail([1, 2], [1])

    @given(pairs)
    def test_swapping_the_groups_changes_only_the_sign(self, rows):
        a, b = [row[0] for row in rows], [row[1] for row in rows]
        forward, back = stats.paired_detail(a, b), stats.paired_detail(b, a)
        assert (forward.sd, forward.p_wilcoxon, forward.skewed) == (back.sd, back.p_wilcoxon, back.skewed)
        assert forward.p_permutation == back.p_permutation
        if rows:
            assert forward.cliffs_delta == -back.cliffs_delta

    @given(anything, anything)
    @example([1.0, 2.0, 4.0, 8.0, 0.0, 3.0], [2.0, 1.0, 5.0, 6.0, 2.0, 9.0])  # not skewed: only p_permutation is None
    def test_never_nan(self, check_invariants, a, b):
        n = min(len(a), len(b))
        check_invariants(stats.paired_detail(a[:n], b[:n]))


class TestHolm:
    def test_hand_computed(self):
        # Sorted 0.005 0.01 0.03 0.04: times 4, 3, 2, 1 = 0.02 0.03 0.06 0.04, then never falling: 0.02 0.03 0.06 0.06
        assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_untested_hypotheses_stay_none_and_do_not_count(self):
        assert stats.holm([None, 0.04, None]) == [None, 0.04, None]
        assert stats.holm([]) == []

    def test_equal_p_values_have_equal_adjusted_values(self):
        assert stats.holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])

    @given(probabilities)
    def test_adjusted_p_is_between_raw_and_bonferroni_in_the_same_order(self, p):
        adjusted = stats.holm(p)
        both = [(raw, new) for raw, new in zip(p, adjusted, strict=True) if raw is not None]
        assert [new is None for new in adjusted] == [raw is None for raw in p]
        for raw, new in both:
            assert raw <= new <= min(1.0, raw * len(both)) + 1e-12
        by_raw = [new for _, new in sorted(both)]
        assert by_raw == sorted(by_raw)
