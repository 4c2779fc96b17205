"""Performance profiles and AlgoPerf scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import stats
from service.stats.profiles import performance_ratios

TIMES = [
    [100, 30, math.inf, math.inf],
    [200, 10, 50, math.inf],
    [450, 12, 200, math.inf],
]
"""Three optimizers on four tasks; all miss the target of the last one."""

tables = st.integers(0, 4).flatmap(
    lambda tasks: st.lists(st.lists(st.floats(), min_size=tasks, max_size=tasks), min_size=1, max_size=4)
)


class TestProfiles:
    def test_ratios_are_relative_to_the_best_time(self):
        inf = math.inf
        expected = [[1, 3, inf, inf], [2, 1, 1, inf], [4.5, 1.2, 4, inf]]
        assert performance_ratios(TIMES) == pytest.approx(np.array(expected))

    def test_profile_is_a_step_function(self):
        taus = [1, 1.19, 1.2, 2, 3, 4, 4.5, 1e9]
        expected = np.array([[1, 1, 1, 1, 2, 2, 2, 2], [2, 2, 2, 3, 3, 3, 3, 3], [0, 0, 1, 1, 1, 2, 3, 3]]) / 4
        assert stats.performance_profile(TIMES, taus) == pytest.approx(expected)

    def test_miss_is_beyond_every_tau(self):
        assert stats.performance_profile(TIMES, [math.inf])[0].tolist() == [0.5]

    def test_ratio_to_time_zero_is_one_or_infinite(self):
        assert performance_ratios([[0], [0], [7]]).ravel().tolist() == [1, 1, math.inf]

    def test_nan_and_negative_times_are_misses(self):
        assert performance_ratios([[math.nan, 3], [-1, 6]]).tolist() == [[math.inf, 1], [math.inf, 2]]

    @pytest.mark.parametrize("function", [performance_ratios, stats.algoperf_scores])
    def test_raises_value_error_for_one_dimension(self, function):
        with pytest.raises(ValueError, match="optimizers x tasks"):
            function([1.0, 2.0])

    @given(tables)
    def test_never_nan(self, times):
        ratios, scores = performance_ratios(times), stats.algoperf_scores(times)
        shares = stats.performance_profile(times, [1, 2, 4])
        assert ratios.shape == np.shape(times)
        assert (ratios >= 1).all()
        assert ((shares >= 0) & (shares <= 1)).all()
        assert ((scores >= 0) & (scores <= 1)).all()


class TestAlgoperf:
    def test_hand_computed(self):
        # (4 - r) / 3 by task: 1 + 1/3, 2/3 + 1 + 1, 0 + 2.8/3 + 0, each over four tasks
        assert stats.algoperf_scores(TIMES) == pytest.approx(np.array([4 / 3, 8 / 3, 2.8 / 3]) / 4)

    def test_score_is_the_area_under_the_profile_from_1_to_4(self):
        times = np.random.default_rng(0).exponential(size=(5, 12))
        taus = np.linspace(1, 4, 30_001)
        area = np.trapezoid(stats.performance_profile(times, taus), taus, axis=1) / 3
        assert stats.algoperf_scores(times) == pytest.approx(area, abs=1e-4)

    def test_score_depends_on_the_other_optimizers(self):
        alone, joined = stats.algoperf_scores([[10.0], [20.0]]), stats.algoperf_scores([[10.0], [20.0], [5.0]])
        assert joined[0] < alone[0]

    def test_scores_are_zero_without_tasks(self):
        assert stats.algoperf_scores(np.empty((2, 0))).tolist() == [0, 0]
