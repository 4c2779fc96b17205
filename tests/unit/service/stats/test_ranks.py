"""Midranks, Wilcoxon's signed-rank test and Cliff's delta."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service.stats.ranks import cliffs_delta, midranks, wilcoxon_p

anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=10)
coarse = st.lists(st.integers(-4, 4), min_size=6, max_size=10)


class TestMidranks:
    @given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
    def test_agrees_with_scipy(self, x):
        assert midranks(np.array(x, dtype=float)) == pytest.approx(reference.rankdata(x))

    def test_values_within_the_tolerance_tie(self):
        assert midranks(np.array([0.3, 0.1 + 0.2, 0.1]), 1e-9).tolist() == [2.5, 2.5, 1]


class TestWilcoxon:
    def test_equals_the_published_table(self):
        # Wilcoxon's table, two-sided: W = 0 at n = 6 has p = 0.03125, W = 8 at n = 10 has p = 0.0488
        assert wilcoxon_p([1, 2, 3, 4, 5, 6]).p == pytest.approx(0.03125)
        assert wilcoxon_p([1, 2, 3, 4, -8, 6, 7, 5, 9, 10]).p == pytest.approx(0.048828, abs=1e-6)

    @pytest.mark.parametrize("n", [6, 10, 25, 50])
    def test_exact_agrees_with_scipy(self, n):
        x = np.random.default_rng(n).normal(0.3, 1, n)
        assert wilcoxon_p(x).p == pytest.approx(reference.wilcoxon(x, method="exact").pvalue, rel=1e-9)

    @pytest.mark.parametrize("n", [51, 200])
    def test_beyond_50_agrees_with_the_normal_approximation_of_scipy(self, n):
        x = np.round(np.random.default_rng(n).normal(0.2, 1, n), 1)  # ties and zeros
        assert (x == 0).any()
        x = np.concatenate((x, [0.7] * 8))
        expected = reference.wilcoxon(x, method="asymptotic", zero_method="wilcox").pvalue
        assert wilcoxon_p(x).p == pytest.approx(expected, rel=1e-9)

    @given(coarse)
    def test_exact_with_ties_and_zeros_counts_all_sign_patterns(self, x):
        nonzero = np.array([value for value in x if value])
        p = wilcoxon_p(x).p
        if len(nonzero) < 6 or len(set(x)) == 1:
            assert p is None
            return
        ranks = reference.rankdata(np.abs(nonzero))
        sums = np.array(list(itertools.product((0, 1), repeat=len(nonzero)))) @ ranks
        positive = ranks[nonzero > 0].sum()
        smaller = min(positive, ranks.sum() - positive)
        assert p == pytest.approx(min(1, 2 * np.mean(sums <= smaller)))

    def test_needs_six_pairs_that_differ(self):
        result = wilcoxon_p([1, 2, 3, 4, 5, 0, 0])
        assert result.p is None
        assert result.cannot_say == "the signed-rank test needs 6 seeds on which the two differ; there are 5"

    def test_differences_within_rounding_tie(self):
        x = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2]) - np.array([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3])
        assert len(set(np.abs(x))) > 1  # all are 0.1 except for rounding
        assert wilcoxon_p(x).p == pytest.approx(2 * 8 / 2**7)

    @given(anything)
    def test_never_nan(self, check_invariants, x):
        check_invariants(wilcoxon_p(x))


class TestCliffsDelta:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
    def test_agrees_with_mann_whitney(self, a, b):
        u = reference.mannwhitneyu(a, b, method="asymptotic").statistic if len({*a, *b}) > 1 else len(a) * len(b) / 2
        assert cliffs_delta(a, b) == pytest.approx(2 * u / (len(a) * len(b)) - 1)

    @pytest.mark.parametrize(
        ("a", "b", "delta"), [([2, 3], [0, 1], 1), ([1], [1], 0), ([0], [1, 2], -1), ([], [1], None), ([1], [], None)]
    )
    def test_extreme_and_missing_values(self, a, b, delta):
        assert cliffs_delta(a, b) == delta

    @given(anything, anything)
    def test_never_nan(self, a, b):
        delta = cliffs_delta(a, b)
        assert delta is None or -1 <= delta <= 1
