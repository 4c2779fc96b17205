"""Friedman's test, average ranks and Nemenyi's critical difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats

tables = st.integers(0, 4).flatmap(
    lambda k: st.lists(st.lists(st.floats(), min_size=k, max_size=k), min_size=1, max_size=10)
)

DEMSAR = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9754, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]
"""Demsar (2006), table 6: AUC of C4.5 and 3 variants on 14 data sets (0.9754 is printed as 0.975 and does not tie)."""


class TestFriedman:
    def test_equals_the_example_of_demsar(self):
        # Published: average ranks 3.143, 2.000, 2.893, 1.964, chi-square 9.28 without the correction for ties
        result = stats.friedman(DEMSAR)
        assert result.ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
        ranks = np.array(result.ranks)
        assert 12 * 14 / (4 * 5) * ((ranks**2).sum() - 4 * 25 / 4) == pytest.approx(9.28, abs=5e-3)
        assert result.statistic > 9.28
        assert result.p == pytest.approx(reference.friedmanchisquare(*np.array(DEMSAR).T).pvalue, rel=1e-9)

    @pytest.mark.parametrize(("tasks", "k"), [(8, 3), (30, 5), (12, 9)])
    def test_agrees_with_scipy(self, tasks, k):
        scores = np.round(np.random.default_rng(k).normal(size=(tasks, k)), 1)
        result, expected = stats.friedman(scores), reference.friedmanchisquare(*scores.T)
        assert result.statistic == pytest.approx(expected.statistic, rel=1e-9)
        assert result.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert result.ranks == pytest.approx(reference.rankdata(-scores, axis=1).mean(axis=0))
        assert stats.average_ranks(scores) == pytest.approx(np.array(result.ranks))

    @pytest.mark.parametrize(
        ("scores", "reason"),
        [
            (np.zeros((0, 3)), "no scores"),
            (np.zeros((9, 0)), "no scores"),
            (np.arange(9.0)[:, None], "only one optimizer"),
            (np.arange(18.0).reshape(9, 2), "Wilcoxon's signed-rank test"),
            (np.arange(21.0).reshape(7, 3), "8 tasks; there are 7"),
            (np.zeros((9, 3)), "all optimizers tie"),
            ([[1, 2, np.nan]] * 9, "not finite"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, scores, reason):
        result = stats.friedman(scores)
        assert (result.statistic, result.p) == (None, None)
        assert reason in result.cannot_say

    def test_gives_ranks_with_too_few_tasks_for_the_test(self):
        assert stats.friedman([[3, 1, 2], [3, 2, 1]]).ranks == (1, 2.5, 2.5)
        assert stats.average_ranks([[3, np.nan, -np.inf], [3, 2, 1]]).tolist() == [1, 2.25, 2.75]
        assert stats.average_ranks(np.empty((0, 3))).tolist() == [2, 2, 2]

    def test_scores_within_rounding_tie(self):
        assert stats.average_ranks([[0.1 + 0.2, 0.3, 0.1]]).tolist() == [1.5, 1.5, 3]

    def test_raises_value_error_for_one_dimension(self):
        with pytest.raises(ValueError, match="tasks x optimizers"):
            stats.friedman([1.0, 2.0])

    @given(tables)
    def test_never_nan(self, check_invariants, scores):
        check_invariants(stats.friedman(scores))
        k = len(scores[0])
        assert stats.average_ranks(scores).sum() == pytest.approx(k * (k + 1) / 2)


class TestNemenyi:
    @pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
    def test_equals_the_published_q_at_5_percent(self, k, q):
        # Demsar (2006), table 5a
        assert stats.nemenyi_critical_difference(k, 1) / (k * (k + 1) / 6) ** 0.5 == pytest.approx(q, abs=1e-3)

    def test_equals_the_example_of_demsar(self):
        assert stats.nemenyi_critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=5e-3)

    @pytest.mark.parametrize(("k", "alpha"), [(3, 0.1), (7, 0.01), (50, 0.05), (4, 1e-6), (3, 0.999)])
    def test_agrees_with_scipy(self, k, alpha):
        q = reference.studentized_range.isf(alpha, k, np.inf)
        expected = q / 2**0.5 * (k * (k + 1) / 60) ** 0.5
        assert stats.nemenyi_critical_difference(k, 10, alpha) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize(("k", "tasks", "alpha"), [(1, 9, 0.05), (3, 0, 0.05), (3, 9, 0.0), (3, 9, float("nan"))])
    def test_none_for_degenerate_input(self, k, tasks, alpha):
        assert stats.nemenyi_critical_difference(k, tasks, alpha) is None
