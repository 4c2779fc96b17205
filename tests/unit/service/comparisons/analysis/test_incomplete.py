"""The answer to a comparison that was cancelled or lacks runs."""

import math

import pytest

from service.comparisons.analysis.comparability import settled
from service.comparisons.design import schedule
from service.comparisons.design.results import Result
from service.specs.states import JobStatus
from tests.unit.service.comparisons.analysis.synthetic_runs import ENVIRONMENT, answer, noisy, play_runs, run
from tests.unit.service.comparisons.plans import (
    ADAM,
    CANCELLED,
    DIVERGED,
    FAILED,
    RUNNING,
    TASK,
    TIMED_OUT,
    fixed,
    make_plan,
    scored,
)


def numbers(value):
    """Yield each number of a document; in JSON, a number that is not finite would be null."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def statistics_of(report):
    """Yield each p value, interval and number of seeds needed."""
    for task in report.tasks:
        for pair in task.pairs:
            detail = pair.detail
            yield from (pair.p, pair.p_adjusted, pair.interval, pair.seeds_needed)
            yield from (detail.p_permutation, detail.p_wilcoxon)
        yield from (race.p for race in task.first_to_target)


class TestCancelled:
    """No test, whatever the number of finished runs: the user may have cancelled because of their results."""

    @pytest.mark.parametrize("seeds", [8, {"max": 8, "looks": [4, 8]}, {"max": 8, "looks": "any"}])
    @pytest.mark.parametrize("finished", [0, 1, 5, 7, 8])
    def test_has_no_verdict_and_no_test(self, seeds, finished):
        plan = fixed(2, seeds=seeds, tasks=[TASK | {"target": {"value": 0.9}}, TASK | {"batch_size": 16}])
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: winner(c) if c.seed < finished or not c.optimizer else CANCELLED)
        report = answer(plan, runs, status="cancelled")
        ended = sum(run.result.status is JobStatus.SUCCEEDED for run in runs)
        assert report.verdict == [
            f"{task.label}: No verdict: the comparison was cancelled after {ended} of 32 final runs."
            for task in report.tasks
        ]
        assert not any(task.verdict.decided or task.verdict.best for task in report.tasks)
        assert set(statistics_of(report)) <= {None}
        assert not any(pair.significant for task in report.tasks for pair in task.pairs)
        assert report.across is None
        assert f"was cancelled after {ended} of 32 final runs, so no hypothesis test was performed." in report.methods

    def test_keeps_the_means(self):
        plan = fixed(2, seeds=40)
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: winner(c) if c.seed < 4 or not c.optimizer else CANCELLED)
        report = answer(plan, runs, status="cancelled")
        assert [(group.label, group.n) for group in report.tasks[0].groups] == [
            ("adam lr=0.002", 4),
            ("adam lr=0.001", 40),
        ]
        assert all(group.mean for group in report.tasks[0].groups)
        assert report.tasks[0].pairs[0].n == 4

    def test_ended_comparison_never_says_yet(self):
        plan = fixed(2)
        report = answer(plan, play_runs(plan, lambda c: RUNNING), status="failed")
        assert report.verdict == ["No verdict: the comparison ended early, after 0 of 10 final runs."]
        assert not [assumption for assumption in report.assumptions if " yet" in assumption.text]


class TestMissingRuns:
    def test_lists_failed_runs_with_reason(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.95])
        runs = play_runs(plan, lambda c: FAILED if (c.optimizer, c.seed) == (0, 1) else winner(c), message="no\nmemory")
        report = answer(plan, runs, status="failed")
        (missing,) = report.tasks[0].missing
        assert (missing.label, missing.seed, missing.why) == ("adam lr=0.001", 1, "error: memory")
        assert report.verdict[0].startswith("No verdict: 1 of 5 runs of adam lr=0.001 is missing (error).")
        assert report.tasks[0].pairs[0].n == 4
        assert not next(a for a in report.assumptions if a.name == "completeness").holds

    @pytest.mark.parametrize("seeds", [6, {"max": 6, "looks": [3, 6]}, {"max": 6, "looks": "any"}])
    @pytest.mark.parametrize(("result", "why"), [(CANCELLED, "cancelled"), (TIMED_OUT, "timed out"), (FAILED, "error")])
    def test_pairs_without_all_planned_runs_are_not_tested(self, seeds, result, why):
        plan = fixed(3, seeds=seeds)
        winner = noisy([0.9, 0.97, 0.8])
        runs = play_runs(plan, lambda c: result if (c.optimizer, c.seed) == (1, 2) else winner(c))
        report = answer(plan, runs, status="failed")
        seed_count = len({run.cell.seed for run in runs})
        run_count = sum(run.cell.optimizer == 1 for run in runs)
        assert report.verdict[0].startswith(
            f"No verdict: 1 of {run_count} runs of adam lr=0.002 is missing ({why}). {seed_count - 1} of {seed_count} "
            "seeds are complete; tests need every planned run."
        )
        assert "Over the finished runs, adam lr=0.002 has the best mean" in report.verdict[0]
        assert "Planned runs were missing; affected pairs were not tested." in report.methods
        for pair in report.tasks[0].pairs:
            is_incomplete = "adam lr=0.002" in (pair.a, pair.b)
            assert (pair.p is None) == (pair.interval is None) == is_incomplete
            assert not is_incomplete or (pair.n == run_count - 1 and pair.difference and not pair.significant)

    @pytest.mark.parametrize("seeds", [5, {"max": 10, "looks": [5, 10]}])
    def test_no_verdict_without_result_of_any_trial(self, seeds):
        plan = make_plan(tuning={"trials": 2}, optimizers=[ADAM, "sgd"], seeds=seeds)
        report = answer(plan, play_runs(plan, lambda c: TIMED_OUT if c.phase == "tuning" else scored(0.5)), "failed")
        assert report.verdict[0].startswith(
            "No verdict: no trial of adam has a result (timed out). Submit the comparison again"
        )
        assert "Planned runs were missing; affected pairs were not tested." in report.methods
        assert [pair.cannot_say for pair in report.tasks[0].pairs] == ["planned runs are missing"]

    def test_best_mean_is_limited_to_optimizers_without_diverged_runs(self):
        plan = fixed(3, metric="test_loss")  # without a score for diverged runs
        scores = noisy([0.5, 0.1, 0.9])
        ends = {(1, 0): DIVERGED, (2, 1): FAILED}
        runs = play_runs(plan, lambda c: ends.get((c.optimizer, c.seed)) or scores(c))
        verdict = answer(plan, runs, status="failed").verdict[0]
        assert "adam lr=0.001 has the best mean test loss of the optimizers without diverged runs" in verdict

    def test_tasks_are_not_ranked_together_if_one_lacks_runs(self):
        plan = fixed(2, tasks=[TASK, TASK | {"batch_size": 16}])
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: FAILED if (c.task, c.optimizer, c.seed) == (1, 1, 2) else winner(c))
        report = answer(plan, runs, status="failed")
        assert report.across is None
        assert report.verdict[-1] == "No overall ranking is given, because planned runs are missing."
        assert [task.verdict.decided for task in report.tasks] == [True, False]
        assert "Planned runs were missing on digits mlp batch_size=16;" in report.methods

    def test_runs_on_other_data_count_as_missing(self):
        plan = fixed(2)
        runs = play_runs(plan, noisy([0.9, 0.95]))
        other = next(run for run in runs if run.cell.seed == 4 and run.cell.optimizer == 1)
        runs[runs.index(other)] = run(other.cell, other.result, environment=ENVIRONMENT | {"data_hash": "bb"})
        report = answer(plan, runs)
        (missing,) = report.tasks[0].missing
        assert "not comparable: its data hash is bb" in missing.why
        assert report.tasks[0].pairs[0].n == 4

    @pytest.mark.parametrize("environment", [ENVIRONMENT, ENVIRONMENT | {"torch": "2.11"}])
    def test_schedule_and_answer_use_the_same_runs(self, environment):
        """Otherwise a comparison could stop at a look because of runs that its answer leaves out."""
        plan = fixed(2, seeds={"max": 20, "looks": [5, 20]})
        are_comparable = environment == ENVIRONMENT
        decided = 0
        for seed in range(40):
            result = noisy([0.9, 0.906], seed=seed)
            cells = [cell for cell in schedule.due(plan, {}) if cell.seed < 5]
            runs = [run(c, result(c), environment=environment if c.seed > 2 else ENVIRONMENT) for c in cells]
            is_decided = answer(plan, runs, status="running").tasks[0].verdict.decided
            requested = schedule.due(plan, {run.cell: run.result for run in settled(plan, runs)})
            assert (len(requested) == len(cells)) == (is_decided or not are_comparable)
            decided += is_decided
        assert 0 < decided < 40 if are_comparable else decided == 0

    def test_run_without_finite_endpoint_counts_as_diverged(self):
        plan = fixed(2, metric="test_loss")
        winner = noisy([0.9, 0.5])
        report = answer(plan, play_runs(plan, lambda c: scored(None) if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        assert [group.diverged for group in report.tasks[0].groups] == [1, 0]
        assert not report.tasks[0].verdict.decided

    def test_runs_with_a_time_budget_need_one_device(self):
        plan = fixed(2, tasks=[TASK | {"budget": {"seconds": 5}}])
        runs = play_runs(plan, noisy([0.9, 0.95]))
        runs[3] = run(runs[3].cell, runs[3].result, environment=ENVIRONMENT | {"device_name": "another"})
        assert "device name" in answer(plan, runs).tasks[0].missing[0].why

    @pytest.mark.parametrize(
        ("seeds", "holds", "message"),
        [
            (3, None, "Skew cannot be checked: no tested pair has 5 seeds with varying differences."),
            (8, True, "The one pair shows no"),
        ],
    )
    def test_skew_that_cannot_be_checked_has_a_reason(self, seeds, holds, message):
        plan = fixed(2, seeds=seeds)
        report = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        skew = next(a for a in report.assumptions if a.name == "symmetry of differences")
        assert (skew.holds, skew.text.startswith(message)) == (holds, True)

    def test_states_too_few_seeds(self):
        plan = fixed(2, seeds=1)
        report = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        assert "Too few seeds" in report.verdict[0]

    @pytest.mark.parametrize("result", [scored(0.5), RUNNING, FAILED, DIVERGED, Result(JobStatus.QUEUED, None)])
    @pytest.mark.parametrize("seeds", [1, 2, 5, {"max": 8, "looks": [4, 8]}, {"max": 6, "looks": "any"}])
    @pytest.mark.parametrize("count", [1, 2])
    def test_degenerate_runs_give_an_answer_without_nan(self, result, seeds, count):
        tasks = [TASK | {"batch_size": 16 * (k + 1)} for k in range(count)]
        for plan in (fixed(3, seeds=seeds, tasks=tasks), make_plan(seeds=seeds, tasks=tasks)):
            report = answer(plan, play_runs(plan, lambda cell: result), status="running")
            assert all(math.isfinite(number) for number in numbers(report.model_dump()))
            assert not any(task.verdict.decided for task in report.tasks)
