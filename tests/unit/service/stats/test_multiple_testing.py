"""Tests of several pairs together: planned looks, Holm's correction and Bonferroni's."""

import numpy as np
import pytest

from service import stats
from service.stats.multiple_testing import ALPHA, Family, TaskScores, adjusted_tests, bonferroni_tests

SEEDS = tuple(range(20))
LOOKS = (5, 10, 20)


def by_seed(values):
    return dict(enumerate(values))


def family(pairs, stopping="looks"):
    return Family(pairs=pairs, stopping=stopping, looks=LOOKS, seeds=SEEDS)


class TestLooks:
    rng = np.random.default_rng(3)
    a, b = 0.9 + 0.01 * rng.normal(size=20), 0.895 + 0.01 * rng.normal(size=20)

    def test_dropped_group_keeps_its_look_and_level(self):
        """Its pairs keep the planned looks: with a single look they would get the whole error rate."""
        groups = [by_seed(self.a), by_seed(self.b[:5])]
        ((dropped,),) = adjusted_tests([TaskScores(groups, [3, 1])], family(3))
        ((at_first_look,),) = adjusted_tests(
            [TaskScores([by_seed(self.a[:5]), by_seed(self.b[:5])], [1, 1])], family(3)
        )
        assert (dropped.n, dropped.p, dropped.interval) == (at_first_look.n, at_first_look.p, at_first_look.interval)

    def test_runs_beyond_a_complete_look_are_ignored(self):
        early = adjusted_tests([TaskScores([by_seed(self.a[:5]), by_seed(self.b[:5])], [1, 1])], family(1))
        late = adjusted_tests([TaskScores([by_seed(self.a[:9]), by_seed(self.b[:9])], [1, 1])], family(1))
        assert (early[0][0].n, early[0][0].p) == (late[0][0].n, late[0][0].p) == (5, early[0][0].p)

    def test_level_is_the_planned_one_divided_over_the_pairs(self):
        level = stats.nominal_levels(LOOKS, ALPHA / 6)[0]
        ((test,),) = adjusted_tests([TaskScores([by_seed(self.a[:5]), by_seed(self.b[:5])], [1, 1])], family(6))
        plain = stats.paired_difference(self.a[:5], self.b[:5])
        assert test.significant == (plain.p <= level)

    def test_seed_without_value_moves_the_look(self):
        failed = {seed: value for seed, value in by_seed(self.b).items() if seed != 2}
        ((test,),) = adjusted_tests([TaskScores([by_seed(self.a), failed], [3, 3])], family(1))
        assert test.n in (4, 9, 19)


class TestHolm:
    def test_untested_pairs_count(self):
        x, y = by_seed([0.9, 0.91, 0.905, 0.902, 0.9]), by_seed([0.88, 0.892, 0.884, 0.886, 0.879])
        finished, unfinished = TaskScores([x, y]), TaskScores([{}, {}])
        ((alone,),) = adjusted_tests([finished], family(1, "fixed"))
        first, second = adjusted_tests([finished, unfinished], family(2, "fixed"))
        assert first[0].p_adjusted == pytest.approx(2 * alone.p_adjusted)
        assert second[0].p_adjusted is None

    def test_one_task_alone_is_never_less_conservative_than_all_together(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            groups = [by_seed(0.9 + 0.004 * k + 0.01 * rng.normal(size=6)) for k in range(3)]
            alone = bonferroni_tests(TaskScores(groups), family(3, "fixed"))
            (together,) = adjusted_tests([TaskScores(groups)], family(3, "fixed"))
            for single, joint in zip(alone, together, strict=True):
                assert joint.significant or not single.significant
