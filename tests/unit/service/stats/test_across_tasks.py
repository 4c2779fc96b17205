"""The interquartile mean over tasks and the probability of improvement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service import stats
from service.stats.bootstrap import stratified_bootstrap

tables = st.lists(st.lists(st.floats(), max_size=6), max_size=5)


class TestInterquartileMeanAcross:
    def test_value_is_the_trimmed_mean_of_all_scores(self):
        generator = np.random.default_rng(0)
        scores = [generator.normal(task, 1, 5 + task) for task in range(4)]
        result = stats.interquartile_mean_across(scores)
        assert result.n == 26
        assert result.value == pytest.approx(reference.trim_mean(np.concatenate(scores), 0.25))
        assert result.interval[0] < result.value < result.interval[1]

    def test_tasks_are_not_resampled(self):
        scores = [1000 * task + np.arange(5.0) for task in range(4)]  # large between tasks, small within a task
        low, high = stats.interquartile_mean_across(scores).interval
        assert high - low < 5

    @pytest.mark.parametrize(
        ("scores", "value", "reason"),
        [
            ([], None, "no tasks"),
            ([[1, 2], []], None, "a task has no score"),
            ([[1, 2], [np.nan]], None, "not finite"),
            ([[1, 2, 3, 4, 5]] * 3, 3, "5 seeds per task and 20 scores in total"),
            ([[1, 2, 3, 4]] * 9, 2.5, "5 seeds per task and 20 scores in total"),
            ([[7] * 5] * 4, 7, "give the same value"),
        ],
    )
    def test_degenerate_input_gives_the_reason(self, scores, value, reason):
        result = stats.interquartile_mean_across(scores)
        assert result.value == (None if value is None else pytest.approx(value))
        assert result.interval is None
        assert reason in result.cannot_say

    @given(tables)
    def test_never_nan(self, check_invariants, scores):
        check_invariants(stats.interquartile_mean_across(scores, replicates=20))


class TestProbabilityOfImprovement:
    def test_value_is_the_mean_mann_whitney_statistic(self):
        generator = np.random.default_rng(1)
        a = [np.round(generator.normal(0.5, 1, n), 1) for n in (5, 7, 9)]
        b = [np.round(generator.normal(0, 1, n), 1) for n in (6, 8, 10)]
        result = stats.probability_of_improvement(a, b)
        shares = [reference.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b, strict=True)]
        assert result.n == 45
        assert result.value == pytest.approx(np.mean(shares))
        assert result.interval[0] < result.value < result.interval[1]

    def test_interval_equals_that_of_resampled_scores(self):
        generator = np.random.default_rng(2)
        a, b = [generator.normal(0.5, 1, 10) for _ in "ab"], [generator.normal(0, 1, 12) for _ in "ab"]
        result = stats.probability_of_improvement(a, b, replicates=20_000)
        both = stratified_bootstrap(
            a + b,
            lambda x: np.mean([(x[t][:, :, None] > x[t + 2][:, None, :]).mean(axis=(1, 2)) for t in (0, 1)], axis=0),
            replicates=20_000,
            rng=1,
        )
        assert result.interval == pytest.approx(tuple(np.quantile(both, (0.025, 0.975))), abs=0.01)  # a width of 0.35

    def test_swapping_the_groups_gives_the_complement(self):
        a, b = [[1, 2, 2], [3, 4]], [[2, 2], [1, 9, 4]]
        forward, back = stats.probability_of_improvement(a, b), stats.probability_of_improvement(b, a)
        assert forward.value == pytest.approx(1 - back.value)

    def test_no_interval_for_separated_scores(self):
        result = stats.probability_of_improvement([np.arange(5.0) + 10] * 4, [np.arange(5.0)] * 4)
        assert (result.value, result.interval) == (1.0, None)
        assert "give the same value" in result.cannot_say

    def test_raises_value_error_for_different_numbers_of_tasks(self):
        with pytest.raises(ValueError, match="1 tasks cannot be compared with 2"):
            stats.probability_of_improvement([[1]], [[1], [2]])

    @given(tables, tables)
    def test_never_nan(self, check_invariants, a, b):
        n = min(len(a), len(b))
        check_invariants(stats.probability_of_improvement(a[:n], b[:n], replicates=20))
