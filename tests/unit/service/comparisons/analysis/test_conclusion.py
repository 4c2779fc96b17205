"""The answer to a comparison: verdicts, ties, diverged runs, costs and progress."""

from datetime import timedelta

import numpy as np
import pytest

from tests.unit.service.comparisons.analysis.synthetic_runs import START, answer, noisy, play_runs, run
from tests.unit.service.comparisons.plans import DIVERGED, FAILED, RUNNING, TASK, TIMED_OUT, fixed, make_plan, scored


class TestVerdict:
    def test_clear_winner_is_best(self):
        plan = fixed(3)
        report = answer(plan, play_runs(plan, noisy([0.90, 0.97, 0.80])))
        (task,) = report.tasks
        assert task.verdict.decided
        assert task.verdict.best == "adam lr=0.002"
        assert [group.label for group in task.groups] == ["adam lr=0.002", "adam lr=0.001", "adam lr=0.003"]
        assert all(pair.difference > 0 and pair.significant for pair in task.pairs)
        assert "after Holm's correction over 3 pairs" in report.verdict[0]
        assert "The result applies to one split of the data only." in report.verdict[0]

    def test_open_pair_has_an_estimate_of_the_seeds_needed(self):
        plan = fixed(2)
        report = answer(plan, play_runs(plan, noisy([0.90, 0.903], seed=3)))
        assert not report.tasks[0].verdict.decided
        (pair,) = report.tasks[0].pairs
        assert pair.seeds_needed > 5
        assert f"About {pair.seeds_needed} seeds per optimizer, including those already run" in report.verdict[0]

    def test_smaller_loss_is_better(self):
        plan = fixed(2, metric="test_loss")
        report = answer(plan, play_runs(plan, noisy([0.9, 0.5])))
        assert report.tasks[0].verdict.best == "adam lr=0.002"
        assert report.tasks[0].pairs[0].difference == pytest.approx(-0.4, abs=0.02)

    def test_all_pairs_of_all_tasks_are_one_family(self):
        tasks = [TASK | {"batch_size": size} for size in (16, 32, 64)]
        single, joint = fixed(2, tasks=tasks[:1]), fixed(2, tasks=tasks)
        single_pair = answer(single, play_runs(single, noisy([0.9, 0.91]))).tasks[0].pairs[0]
        joint_pair = answer(joint, play_runs(joint, noisy([0.9, 0.91]))).tasks[0].pairs[0]
        assert joint_pair.p == single_pair.p
        assert joint_pair.p_adjusted > single_pair.p_adjusted

    def test_fixed_plan_has_no_verdict_before_the_end(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.5])
        report = answer(plan, play_runs(plan, lambda c: RUNNING if c.seed == 4 else winner(c)), status="running")
        assert not report.tasks[0].verdict.decided
        assert "8 of 10 final runs have finished" in report.verdict[0]

    def test_fixed_plan_shows_no_test_until_all_tasks_are_complete(self):
        plan = fixed(2, tasks=[TASK, TASK | {"batch_size": 32}])
        winner = noisy([0.9, 0.5])
        report = answer(plan, play_runs(plan, lambda c: RUNNING if c.task else winner(c)), status="running")
        assert all("No verdict yet: 10 of 20" in text for text in report.verdict)
        assert not any(pair.significant or pair.p is not None for task in report.tasks for pair in task.pairs)
        assert report.across is None

    def test_no_verdict_while_an_optimizer_has_no_run(self):
        plan = fixed(3)
        winner = noisy([0.9, 0.97, 0.8])
        report = answer(plan, play_runs(plan, lambda c: FAILED if c.optimizer == 2 else winner(c)), status="failed")
        assert not report.tasks[0].verdict.decided
        assert "No verdict: 5 of 5 runs of adam lr=0.003 are missing (error)." in report.verdict[0]

    def test_seeds_needed_exceed_the_seeds_used(self):
        plan = fixed(2, seeds={"max": 10, "looks": [5, 10]})
        for seed in range(20):
            (pair,) = answer(plan, play_runs(plan, noisy([0.9, 0.908], seed=seed))).tasks[0].pairs
            assert pair.significant or pair.seeds_needed is None or pair.seeds_needed > pair.n

    def test_runs_that_ended_before_the_plan_are_counted(self):
        plan = fixed(2)
        runs = play_runs(plan, noisy([0.9, 0.97]), finished_at=START - timedelta(days=1), is_reused=True)
        assumption = answer(plan, runs).assumptions[0]
        assert (assumption.name, assumption.holds) == ("preregistration", False)
        assert "10 of 10 final runs had ended before this plan was fixed" in assumption.text

    def test_looks_give_repeated_intervals_and_no_interval_of_a_mean(self):
        plan = fixed(2, seeds={"max": 20, "looks": [5, 10, 20]})
        report = answer(plan, play_runs(plan, noisy([0.9, 0.97])))
        (pair,) = report.tasks[0].pairs
        assert (pair.n, pair.significant) == (5, True)
        without_looks = answer(fixed(2), play_runs(fixed(2), noisy([0.9, 0.97]))).tasks[0].pairs[0]
        assert pair.difference == without_looks.difference
        assert np.ptp(pair.interval) > np.ptp(without_looks.interval)
        assert all(group.interval is None and "interim results" in group.cannot_say for group in report.tasks[0].groups)
        assert report.plan.nominal_p == pytest.approx([0.0031, 0.0099, 0.0425], abs=0.001)

    def test_looks_at_any_time_use_an_always_valid_test(self):
        plan = fixed(2, seeds={"max": 30, "looks": "any"})
        report = answer(plan, play_runs(plan, noisy([0.9, 0.97])))
        assert report.tasks[0].verdict.decided
        assert "(always-valid test)" in report.verdict[0]


class TestDivergence:
    def test_counts_with_the_declared_score(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.95])
        report = answer(plan, play_runs(plan, lambda c: DIVERGED if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        group = next(group for group in report.tasks[0].groups if group.label == "adam lr=0.002")
        assert (group.n, group.diverged) == (5, 1)
        assert group.mean == pytest.approx((4 * 0.95 + 0.1) / 5, abs=0.01)
        assert "1 of 5 runs of adam lr=0.002 diverged and counts as 10.0 %" in report.verdict[0]

    def test_cannot_be_best_without_a_score(self):
        plan = fixed(2, metric="test_loss")
        winner = noisy([0.9, 0.5])
        report = answer(plan, play_runs(plan, lambda c: DIVERGED if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        assert not report.tasks[0].verdict.decided
        assert "cannot be best" in report.verdict[0]

    @pytest.mark.parametrize("metric", ["test_loss", "test_accuracy"])
    def test_all_runs_diverged_is_one_sentence(self, metric):
        plan = fixed(2, metric=metric)
        report = answer(plan, play_runs(plan, lambda cell: DIVERGED))
        assert report.verdict == ["Every run diverged, so there is nothing to compare."]

    def test_failed_runs_have_not_diverged(self):
        plan = fixed(2)
        report = answer(plan, play_runs(plan, lambda cell: TIMED_OUT), status="failed")
        assert report.verdict == [
            "No verdict: 5 of 5 runs of adam lr=0.001 are missing (timed out) and 5 of 5 runs of adam lr=0.002 are "
            "missing (timed out). 0 of 5 seeds are complete; tests need every planned run. "
            "Submit the comparison again to run only the missing runs."
        ]

    def test_loss_too_large_for_arithmetic_counts_as_diverged(self):
        plan = fixed(2, metric="test_loss")
        report = answer(plan, play_runs(plan, lambda c: scored(1.7e308 if c.optimizer else 0.5, loss=1.7e308)))
        assert [group.diverged for group in report.tasks[0].groups] == [0, 5]


class TestTies:
    def test_equal_results_have_no_best_mean(self):
        plan = fixed(3)
        report = answer(plan, play_runs(plan, lambda c: scored(0.3 if c.optimizer == 2 else 0.9 + 0.001 * c.seed)))
        text = report.verdict[0]
        assert text.startswith(
            "adam lr=0.001 and adam lr=0.002 gave the same result in every run (mean test accuracy of 90.2 % "
            "over 5 seeds). "
        )
        assert " adam lr=0.003 is significantly behind at least one other optimizer." in text
        assert "best" not in text

    def test_all_groups_equal(self):
        plan = fixed(3)
        report = answer(plan, play_runs(plan, lambda c: scored(0.1)))
        assert "adam lr=0.001, adam lr=0.002 and adam lr=0.003 gave the same result in every run" in report.verdict[0]
        assert "not significantly behind any other" not in report.verdict[0]


def test_cost_is_relative_to_the_cheapest():
    plan = fixed(2)
    runs = [
        run(equal.cell, equal.result, train_seconds=1.0 + equal.cell.optimizer)
        for equal in play_runs(plan, noisy([0.9, 0.9]))
    ]
    costs = answer(plan, runs).tasks[0].cost
    assert [cost.ratio for cost in costs] == [1.0, 2.0]
    assert [cost.milliseconds_per_step for cost in costs] == [10.0, 20.0]
    assert costs[0].optimizer_state_bytes == 8000


def test_progress_counts_runs_and_estimates_seconds_left():
    plan = make_plan()
    report = answer(plan, play_runs(plan, lambda c: RUNNING if c.trial else scored(0.5)), status="running")
    assert (report.progress.phase, report.progress.running, report.progress.succeeded) == ("tuning", 6, 2)
    assert report.progress.seconds_left == pytest.approx(3.0 * (2 * 9 - 2))
