"""Ranks, profiles and times to a target over several tasks."""

import math
from dataclasses import replace

import pytest

from service.specs.summary import TargetHit
from tests.unit.service.comparisons.analysis.synthetic_runs import answer, noisy, play_runs
from tests.unit.service.comparisons.plans import TASK, fixed

EIGHT_TASKS = [TASK | {"batch_size": size, "target": {"value": 0.9}} for size in range(10, 18)]


class TestCrossTask:
    def test_ranks_and_tests_eight_tasks(self):
        plan = fixed(3, tasks=EIGHT_TASKS)
        runs = play_runs(plan, noisy([0.80, 0.97, 0.90]))
        seconds = {0: 30.0, 1: 10.0, 2: 20.0}
        runs = [replace(run, hit=TargetHit(step=10, wall_seconds=seconds[run.cell.optimizer])) for run in runs]
        across = answer(plan, runs).across
        assert [(rank.label, rank.mean_rank) for rank in across.ranks] == [
            ("adam lr=0.002", 1.0),
            ("adam lr=0.003", 2.0),
            ("adam lr=0.001", 3.0),
        ]
        assert across.friedman_p < 0.001
        assert across.critical_difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 8)), abs=0.01)
        assert [rank.algoperf for rank in across.ranks] == pytest.approx([1.0, 2 / 3, 1 / 3])
        assert across.improvements[0].probability == 0.0
        fastest = next(profile for profile in across.profiles if profile.label == "adam lr=0.002")
        assert fastest.shares == [1.0] * len(fastest.ratios)

    def test_describes_fewer_tasks_without_test(self):
        plan = fixed(3, tasks=EIGHT_TASKS[:2])
        report = answer(plan, play_runs(plan, noisy([0.80, 0.97, 0.90])))
        assert report.across.critical_difference is None
        assert report.across.cannot_say
        assert "a description, not a test" in report.verdict[-1]

    def test_miss_counts_as_later_than_any_hit(self):
        plan = fixed(2, tasks=EIGHT_TASKS[:1])
        runs = play_runs(plan, noisy([0.9, 0.95]))
        hit = TargetHit(step=50, wall_seconds=5.0)
        task = answer(plan, [replace(run, hit=hit if run.cell.optimizer else None) for run in runs]).tasks[0]
        to_target = {view.label: view for view in task.to_target}
        (first,) = task.first_to_target
        assert (first.a, first.a_first, first.b_first, first.p) == ("adam lr=0.002", 5, 0, None)
        assert "needs 6 seeds" in first.cannot_say
        assert (to_target["adam lr=0.002"].reached, to_target["adam lr=0.002"].steps) == (5, 50)
        assert (to_target["adam lr=0.001"].reached, to_target["adam lr=0.001"].steps) == (0, None)
