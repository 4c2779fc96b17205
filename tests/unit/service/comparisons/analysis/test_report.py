"""From runs to an answer; the runs are invented, so that the truth is known."""

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from scipy.stats import binom

from service.comparisons.analysis.comparability import settled
from service.comparisons.analysis.report import conclude
from service.comparisons.answers import Estimate
from service.comparisons.design import schedule
from service.comparisons.design.runs import CellRun, Result
from service.specs.outcome import TargetHit
from service.specs.states import JobStatus, Reason
from service.storage.tables import Comparison, User
from tests.thoroughness import replicates
from tests.unit.service.comparisons.design.test_schedule import (
    ADAM,
    DIVERGED,
    FAILED,
    RUNNING,
    SGD,
    TASK,
    fixed,
    planned,
    scored,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ENVIRONMENT = {
    "device_kind": "cpu",
    "device_name": "one",
    "torch": "2.14.1",
    "data_hash": "aa",
    "engine_version": 2,
}


def run(cell, result, **changes):
    known = {
        "job": UUID(int=abs(hash(cell)) % 2**128),
        "user": "ada",
        "is_reused": False,
        "message": None,
        "train_seconds": 2.0,
        "total_seconds": 3.0,
        "steps": 100,
        "parameters": 1000,
        "hit": None,
        "memory": {"peak_bytes": 2**20, "optimizer_state_bytes": 8000},
        "environment": ENVIRONMENT if result.is_final else dict.fromkeys(ENVIRONMENT),
        "finished_at": START if result.is_final else None,
        "is_shared": False,
    }
    return CellRun(cell=cell, result=result, **(known | changes))


def play_runs(plan, result, **changes):
    results = {}
    while missing := [cell for cell in schedule.due(plan, results) if cell not in results]:
        results |= {cell: result(cell) for cell in missing}
        if any(not one.is_final for one in results.values()):
            break
    return [run(cell, one, **changes) for cell, one in results.items()]


def answer(plan, runs, status="succeeded"):
    comparison = Comparison(
        id=uuid4(), name="test", user=User(name="ada"), status=status, message=None, created_at=START, finished_at=START
    )
    pairs = itertools.product(range(len(plan.tasks)), range(len(plan.optimizers)))
    estimates = {pair: Estimate(task="", optimizer="", seconds=3.0, runs=5) for pair in pairs}
    return conclude(comparison, plan, runs, estimates)


def noisy(means, sd=0.004, seed=0, **results):
    noise = np.random.default_rng(seed).normal(0, sd, (8, len(means), 50))
    return lambda cell: scored(float(means[cell.optimizer] + noise[cell.task, cell.optimizer, cell.seed % 50]))


def numbers(value):
    """Every number in a document; JSON would show one that is not finite as null."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield value


class TestVerdict:
    def test_clear_winner_is_best(self):
        plan = fixed(3)
        found = answer(plan, play_runs(plan, noisy([0.90, 0.97, 0.80])))
        (task,) = found.tasks
        assert task.verdict.decided
        assert task.verdict.best == "adam lr=0.002"
        assert [group.label for group in task.groups] == ["adam lr=0.002", "adam lr=0.001", "adam lr=0.003"]
        assert all(pair.difference > 0 and pair.significant for pair in task.pairs)
        assert "after Holm's correction over 3 pairs" in found.verdict[0]
        assert "The result refers to this one split of the data." in found.verdict[0]

    def test_open_pair_has_an_estimate_of_the_seeds_needed(self):
        plan = fixed(2)
        found = answer(plan, play_runs(plan, noisy([0.90, 0.903], seed=3)))
        assert not found.tasks[0].verdict.decided
        (pair,) = found.tasks[0].pairs
        assert pair.seeds_needed > 5
        assert f"About {pair.seeds_needed} seeds in total would be needed" in found.verdict[0]

    def test_smaller_loss_is_better(self):
        plan = fixed(2, metric="test_loss")
        found = answer(plan, play_runs(plan, noisy([0.9, 0.5])))
        assert found.tasks[0].verdict.best == "adam lr=0.002"
        assert found.tasks[0].pairs[0].difference == pytest.approx(-0.4, abs=0.02)

    def test_all_pairs_of_all_tasks_are_one_family(self):
        tasks = [TASK | {"batch_size": size} for size in (16, 32, 64)]
        one, three = fixed(2, tasks=tasks[:1]), fixed(2, tasks=tasks)
        alone = answer(one, play_runs(one, noisy([0.9, 0.91]))).tasks[0].pairs[0]
        among = answer(three, play_runs(three, noisy([0.9, 0.91]))).tasks[0].pairs[0]
        assert among.p == alone.p
        assert among.p_adjusted > alone.p_adjusted

    def test_fixed_plan_has_no_verdict_before_the_end(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.5])
        found = answer(plan, play_runs(plan, lambda c: RUNNING if c.seed == 4 else winner(c)), status="running")
        assert not found.tasks[0].verdict.decided
        assert "8 of 10 final runs have finished" in found.verdict[0]

    def test_fixed_plan_shows_no_test_until_all_tasks_are_complete(self):
        plan = fixed(2, tasks=[TASK, TASK | {"batch_size": 32}])
        winner = noisy([0.9, 0.5])
        found = answer(plan, play_runs(plan, lambda c: RUNNING if c.task else winner(c)), status="running")
        assert all("No verdict yet: 10 of 20" in text for text in found.verdict)
        assert not any(pair.significant or pair.p is not None for task in found.tasks for pair in task.pairs)
        assert found.across is None

    def test_none_is_best_while_an_optimizer_has_no_run(self):
        plan = fixed(3)
        winner = noisy([0.9, 0.97, 0.8])
        found = answer(plan, play_runs(plan, lambda c: FAILED if c.optimizer == 2 else winner(c)), status="failed")
        assert not found.tasks[0].verdict.decided
        assert "No verdict: 5 of 5 runs of adam lr=0.003 are missing (error)." in found.verdict[0]

    def test_seeds_needed_exceed_the_seeds_used(self):
        plan = fixed(2, seeds={"max": 10, "looks": [5, 10]})
        for seed in range(20):
            (pair,) = answer(plan, play_runs(plan, noisy([0.9, 0.908], seed=seed))).tasks[0].pairs
            assert pair.significant or pair.seeds_needed is None or pair.seeds_needed > pair.n

    def test_runs_that_ended_before_the_plan_are_counted(self):
        plan = fixed(2)
        runs = play_runs(plan, noisy([0.9, 0.97]), finished_at=START - timedelta(days=1), is_reused=True)
        first = answer(plan, runs).assumptions[0]
        assert (first.name, first.holds) == ("preregistration", False)
        assert "10 of 10 final runs had ended before this plan was fixed" in first.text

    def test_looks_give_repeated_intervals_and_no_interval_of_a_mean(self):
        plan = fixed(2, seeds={"max": 20, "looks": [5, 10, 20]})
        found = answer(plan, play_runs(plan, noisy([0.9, 0.97])))
        (pair,) = found.tasks[0].pairs
        assert (pair.n, pair.significant) == (5, True)
        once = answer(fixed(2), play_runs(fixed(2), noisy([0.9, 0.97]))).tasks[0].pairs[0]
        assert pair.difference == once.difference
        assert np.ptp(pair.interval) > np.ptp(once.interval)
        assert all(group.interval is None and "after looks" in group.cannot_say for group in found.tasks[0].groups)
        assert found.plan.nominal_p == pytest.approx([0.0031, 0.0099, 0.0425], abs=0.001)

    def test_looks_at_any_time_use_an_always_valid_test(self):
        plan = fixed(2, seeds={"max": 30, "looks": "any"})
        found = answer(plan, play_runs(plan, noisy([0.9, 0.97])))
        assert found.tasks[0].verdict.decided
        assert "(always-valid test)" in found.verdict[0]


CANCELLED = Result(JobStatus.CANCELLED, Reason.CANCELLED)
TIMED_OUT = Result(JobStatus.FAILED, Reason.TIMED_OUT)


def numbers_that_test(found):
    """Every number that tests something."""
    for task in found.tasks:
        for pair in task.pairs:
            detail = pair.detail
            yield from (pair.p, pair.p_adjusted, pair.interval, pair.seeds_needed)
            yield from (detail.p_permutation, detail.p_wilcoxon)
        yield from (race.p for race in task.first_to_target)


class TestCancelled:
    """However many runs there are, and whenever the last of them ended: who cancels may have seen them."""

    @pytest.mark.parametrize("seeds", [8, {"max": 8, "looks": [4, 8]}, {"max": 8, "looks": "any"}])
    @pytest.mark.parametrize("there", [0, 1, 5, 7, 8])
    def test_has_no_verdict_and_no_test(self, seeds, there):
        plan = fixed(2, seeds=seeds, tasks=[TASK | {"target": {"value": 0.9}}, TASK | {"batch_size": 16}])
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: winner(c) if c.seed < there or not c.optimizer else CANCELLED)
        found = answer(plan, runs, status="cancelled")
        ended = sum(one.result.status is JobStatus.SUCCEEDED for one in runs)
        assert found.verdict == [
            f"{task.label}: No verdict: the comparison was cancelled after {ended} of 32 final runs."
            for task in found.tasks
        ]
        assert not any(task.verdict.decided or task.verdict.best for task in found.tasks)
        assert set(numbers_that_test(found)) <= {None}
        assert not any(pair.significant for task in found.tasks for pair in task.pairs)
        assert found.across is None
        assert f"was cancelled after {ended} of 32 final runs, so nothing was tested." in found.methods

    def test_keeps_the_means(self):
        plan = fixed(2, seeds=40)
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: winner(c) if c.seed < 4 or not c.optimizer else CANCELLED)
        found = answer(plan, runs, status="cancelled")
        assert [(group.label, group.n) for group in found.tasks[0].groups] == [
            ("adam lr=0.002", 4),
            ("adam lr=0.001", 40),
        ]
        assert all(group.mean for group in found.tasks[0].groups)
        assert found.tasks[0].pairs[0].n == 4

    def test_ended_comparison_never_says_yet(self):
        plan = fixed(2)
        found = answer(plan, play_runs(plan, lambda c: RUNNING), status="failed")
        assert found.verdict == ["No verdict: the comparison ended early, after 0 of 10 final runs."]
        assert not [one for one in found.assumptions if " yet" in one.text]


class TestDivergence:
    def test_counts_with_the_declared_score(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.95])
        found = answer(plan, play_runs(plan, lambda c: DIVERGED if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        group = next(group for group in found.tasks[0].groups if group.label == "adam lr=0.002")
        assert (group.n, group.diverged) == (5, 1)
        assert group.mean == pytest.approx((4 * 0.95 + 0.1) / 5, abs=0.01)
        assert "1 of 5 runs of adam lr=0.002 diverged and counts as 10.0 %" in found.verdict[0]

    def test_cannot_be_best_without_a_score(self):
        plan = fixed(2, metric="test_loss")
        winner = noisy([0.9, 0.5])
        found = answer(plan, play_runs(plan, lambda c: DIVERGED if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        assert not found.tasks[0].verdict.decided
        assert "cannot be best" in found.verdict[0]

    @pytest.mark.parametrize("metric", ["test_loss", "test_accuracy"])
    def test_all_diverged_is_one_sentence(self, metric):
        plan = fixed(2, metric=metric)
        found = answer(plan, play_runs(plan, lambda cell: DIVERGED))
        assert found.verdict == ["Every run diverged, so there is nothing to compare."]

    def test_failed_runs_have_not_diverged(self):
        plan = fixed(2)
        found = answer(plan, play_runs(plan, lambda cell: TIMED_OUT), status="failed")
        assert found.verdict == [
            "No verdict: 5 of 5 runs of adam lr=0.001 are missing (timed out) and 5 of 5 runs of adam lr=0.002 are "
            "missing (timed out). 0 of 5 seeds are complete; tests need every planned run. "
            "Submit the comparison again to run only the missing runs."
        ]

    def test_loss_too_large_for_arithmetic_counts_as_diverged(self):
        plan = fixed(2, metric="test_loss")
        found = answer(plan, play_runs(plan, lambda c: scored(1.7e308 if c.optimizer else 0.5, loss=1.7e308)))
        assert [group.diverged for group in found.tasks[0].groups] == [0, 5]


class TestTies:
    def test_equal_results_have_no_best_mean(self):
        plan = fixed(3)
        found = answer(plan, play_runs(plan, lambda c: scored(0.3 if c.optimizer == 2 else 0.9 + 0.001 * c.seed)))
        text = found.verdict[0]
        assert text.startswith(
            "adam lr=0.001 and adam lr=0.002 gave the same result in every run (mean test accuracy 90.2 %, 5 seeds). "
        )
        assert "Significantly behind: adam lr=0.003." in text
        assert "best" not in text

    def test_all_groups_equal(self):
        plan = fixed(3)
        found = answer(plan, play_runs(plan, lambda c: scored(0.1)))
        assert "adam lr=0.001, adam lr=0.002 and adam lr=0.003 gave the same result in every run" in found.verdict[0]
        assert "Also not significantly behind" not in found.verdict[0]


class TestMissingRuns:
    def test_failed_runs_are_listed_with_their_reason(self):
        plan = fixed(2)
        winner = noisy([0.9, 0.95])
        runs = play_runs(plan, lambda c: FAILED if (c.optimizer, c.seed) == (0, 1) else winner(c), message="no\nmemory")
        found = answer(plan, runs, status="failed")
        (missing,) = found.tasks[0].missing
        assert (missing.label, missing.seed, missing.why) == ("adam lr=0.001", 1, "error: memory")
        assert found.verdict[0].startswith("No verdict: 1 of 5 runs of adam lr=0.001 is missing (error).")
        assert found.tasks[0].pairs[0].n == 4
        assert not next(one for one in found.assumptions if one.name == "completeness").holds

    @pytest.mark.parametrize("seeds", [6, {"max": 6, "looks": [3, 6]}, {"max": 6, "looks": "any"}])
    @pytest.mark.parametrize(("result", "why"), [(CANCELLED, "cancelled"), (TIMED_OUT, "timed out"), (FAILED, "error")])
    def test_pairs_without_all_planned_runs_are_not_tested(self, seeds, result, why):
        plan = fixed(3, seeds=seeds)
        winner = noisy([0.9, 0.97, 0.8])
        runs = play_runs(plan, lambda c: result if (c.optimizer, c.seed) == (1, 2) else winner(c))
        found = answer(plan, runs, status="failed")
        whole = len({one.cell.seed for one in runs})
        asked = sum(one.cell.optimizer == 1 for one in runs)
        assert found.verdict[0].startswith(
            f"No verdict: 1 of {asked} runs of adam lr=0.002 is missing ({why}). {whole - 1} of {whole} "
            "seeds are complete; tests need every planned run."
        )
        assert "Over the finished runs, adam lr=0.002 (" in found.verdict[0]
        assert "Planned runs were missing; affected pairs were not tested." in found.methods
        for pair in found.tasks[0].pairs:
            short = "adam lr=0.002" in (pair.a, pair.b)
            assert (pair.p is None) == (pair.interval is None) == short
            assert not short or (pair.n == asked - 1 and pair.difference and not pair.significant)

    def test_no_trial_has_a_result(self):
        plan = planned(tuning={"trials": 2}, optimizers=[ADAM, "sgd"])
        found = answer(plan, play_runs(plan, lambda c: TIMED_OUT if c.phase == "tuning" else scored(0.5)), "failed")
        assert found.verdict[0].startswith(
            "No verdict: no trial of adam has a result (timed out). Submit the comparison again"
        )

    def test_tasks_are_not_ranked_together_if_one_lacks_runs(self):
        plan = fixed(2, tasks=[TASK, TASK | {"batch_size": 16}])
        winner = noisy([0.9, 0.97])
        runs = play_runs(plan, lambda c: FAILED if (c.task, c.optimizer, c.seed) == (1, 1, 2) else winner(c))
        found = answer(plan, runs, status="failed")
        assert found.across is None
        assert found.verdict[-1] == "No overall ranking is given, because planned runs are missing."
        assert [task.verdict.decided for task in found.tasks] == [True, False]
        assert "Planned runs were missing on digits mlp batch_size=16;" in found.methods

    def test_runs_on_other_data_are_missing(self):
        plan = fixed(2)
        runs = play_runs(plan, noisy([0.9, 0.95]))
        strange = next(one for one in runs if one.cell.seed == 4 and one.cell.optimizer == 1)
        runs[runs.index(strange)] = run(strange.cell, strange.result, environment=ENVIRONMENT | {"data_hash": "bb"})
        found = answer(plan, runs)
        (missing,) = found.tasks[0].missing
        assert "not comparable: its data hash is bb" in missing.why
        assert found.tasks[0].pairs[0].n == 4

    @pytest.mark.parametrize("environment", [ENVIRONMENT, ENVIRONMENT | {"torch": "2.11"}])
    def test_schedule_and_answer_use_the_same_runs(self, environment):
        """Else a comparison would stop at a look by runs that its answer leaves out."""
        plan = fixed(2, seeds={"max": 20, "looks": [5, 20]})
        is_whole = environment == ENVIRONMENT
        decided = 0
        for seed in range(40):
            invented = noisy([0.9, 0.906], seed=seed)
            cells = [cell for cell in schedule.due(plan, {}) if cell.seed < 5]
            runs = [run(c, invented(c), environment=environment if c.seed > 2 else ENVIRONMENT) for c in cells]
            said = answer(plan, runs, status="running").tasks[0].verdict.decided
            wanted = schedule.due(plan, {one.cell: one.result for one in settled(plan, runs)})
            assert (len(wanted) == len(cells)) == (said or not is_whole)
            decided += said
        assert 0 < decided < 40 if is_whole else decided == 0

    def test_run_without_finite_endpoint_counts_as_diverged(self):
        plan = fixed(2, metric="test_loss")
        winner = noisy([0.9, 0.5])
        found = answer(plan, play_runs(plan, lambda c: scored(None) if (c.optimizer, c.seed) == (1, 2) else winner(c)))
        assert [group.diverged for group in found.tasks[0].groups] == [1, 0]
        assert not found.tasks[0].verdict.decided

    def test_runs_with_a_time_budget_need_one_device(self):
        plan = fixed(2, tasks=[TASK | {"budget": {"seconds": 5}}])
        runs = play_runs(plan, noisy([0.9, 0.95]))
        runs[3] = run(runs[3].cell, runs[3].result, environment=ENVIRONMENT | {"device_name": "another"})
        assert "device name" in answer(plan, runs).tasks[0].missing[0].why

    @pytest.mark.parametrize(
        ("seeds", "holds", "words"),
        [(3, None, "Skew cannot be checked: no tested pair has at least 5 seeds."), (8, True, "The one pair shows no")],
    )
    def test_skew_that_cannot_be_checked_has_a_reason(self, seeds, holds, words):
        plan = fixed(2, seeds=seeds)
        found = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        skew = next(one for one in found.assumptions if one.name == "symmetry of differences")
        assert (skew.holds, skew.text.startswith(words)) == (holds, True)

    def test_one_seed_is_too_few(self):
        plan = fixed(2, seeds=1)
        found = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        assert "Too few seeds" in found.verdict[0]

    @pytest.mark.parametrize("result", [scored(0.5), RUNNING, FAILED, DIVERGED, Result(JobStatus.QUEUED, None)])
    @pytest.mark.parametrize("seeds", [1, 2, 5, {"max": 8, "looks": [4, 8]}, {"max": 6, "looks": "any"}])
    @pytest.mark.parametrize("count", [1, 2])
    def test_degenerate_runs_give_an_answer_without_nan(self, result, seeds, count):
        tasks = [TASK | {"batch_size": 16 * (k + 1)} for k in range(count)]
        for plan in (fixed(3, seeds=seeds, tasks=tasks), planned(seeds=seeds, tasks=tasks)):
            found = answer(plan, play_runs(plan, lambda cell: result), status="running")
            assert all(math.isfinite(number) for number in numbers(found.model_dump()))
            assert not any(task.verdict.decided for task in found.tasks)


class TestTuning:
    def test_lists_trials_and_the_chosen_one(self):
        plan = planned(optimizers=[ADAM, SGD], tuning={"trials": 5})
        peak = noisy([0.9, 0.8])

        def result(cell):
            lr = plan.optimizers[cell.optimizer].trials[cell.trial]["lr"]
            return scored(peak(cell).value - 0.1 * abs(math.log10(lr) + 2.5))

        found = answer(plan, play_runs(plan, result))
        view = found.tasks[0].tuning[0]
        assert view.chosen == max(range(5), key=lambda trial: view.trials[trial].score)
        assert view.params == view.trials[view.chosen].params
        assert [trial.status for trial in view.trials] == ["finished"] * 5
        assert view.expected_best == sorted(view.expected_best)
        assert view.expected_best[-1] == max(trial.score for trial in view.trials)
        assert view.good_range.decades is not None
        assert "with 5 trials for each optimizer" in found.verdict[0]

    def test_chosen_value_at_the_edge_of_its_range_is_stated(self):
        plan = planned(tuning={"trials": 5})
        found = answer(plan, play_runs(plan, lambda c: scored(plan.optimizers[c.optimizer].trials[c.trial]["lr"])))
        assert found.tasks[0].tuning[0].at_edge == ["lr"]
        assert (
            "Chosen values are at the edge of their range for adam (lr) and sgd (lr); a wider range may help."
            in found.verdict[0]
        )

    @pytest.mark.parametrize(
        ("trials", "holds", "words"),
        [
            (2, None, "too few values were tried: 2 values of lr for adam; 2 values of lr for sgd."),
            (3, None, "3 values of lr"),
            (5, False, "at the edge"),
        ],
    )
    def test_edge_of_few_values_is_not_checked(self, trials, holds, words):
        plan = planned(tuning={"trials": trials})
        found = answer(plan, play_runs(plan, lambda c: scored(plan.optimizers[c.optimizer].trials[c.trial]["lr"])))
        edge = next(one for one in found.assumptions if one.name == "chosen values inside their ranges")
        assert (edge.holds, words in edge.text) == (holds, True)

    def test_fixed_parameters_are_stated(self):
        lr = {"choice": [0.001, 0.01]}
        optimizers = [
            {"name": "adam", "space": {"lr": lr}},
            {"name": "ko", "space": {"lr": lr, "gamma": {"choice": [0.1, 1.0]}}},
        ]
        for more, said in (([], False), (["sgd", "lion", "muon"], True)):
            plan = planned(optimizers=[*optimizers, *more], tuning={"method": "grid"})
            found = answer(plan, play_runs(plan, noisy([0.9, 0.95, 0.9, 0.9, 0.9])))
            equal = next(one for one in found.assumptions if one.name == "equal tuning")
            assert not equal.holds
            assert ("were fixed in the request, not tuned" in equal.text) == said
        assert "those of sgd lr=0.1, lion lr=0.0001 and muon lr=0.02 were fixed in the request." in found.verdict[0]

    def test_assumptions_on_runs_are_open_before_a_run_has_ended(self):
        plan = planned(tuning={"trials": 9, "method": "halving"})
        found = answer(plan, play_runs(plan, lambda c: RUNNING), status="running")
        held = {one.name: (one.holds, one.text) for one in found.assumptions}
        assert held.pop("pairing")[0] is True
        assert all(holds is None and " yet" in text for holds, text in held.values()), held

    def test_failed_trials_are_stated(self):
        plan = planned(tuning={"trials": 4})
        found = answer(
            plan,
            play_runs(plan, lambda c: FAILED if c.phase == "tuning" and c.trial == 1 and c.optimizer else scored(0.5)),
        )
        assert "Tuning was not equal, because trials failed: 1 of the 4 trials of sgd." in found.verdict[0]
        assert not next(one for one in found.assumptions if one.name == "equal tuning").holds

    def test_unequal_numbers_of_trials_are_stated(self):
        lr = {"choice": [0.001, 0.01]}
        optimizers = [
            {"name": "adam", "space": {"lr": lr}},
            {"name": "ko", "space": {"lr": lr, "gamma": {"choice": [0.1, 1.0]}}},
        ]
        plan = planned(optimizers=optimizers, tuning={"trials": 1, "method": "grid"})
        found = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        assert "unequal numbers of trials (adam: 2, ko soft (adam): 4)" in found.verdict[0]
        assert not next(one for one in found.assumptions if one.name == "equal tuning").holds


EIGHT_TASKS = [TASK | {"batch_size": size, "target": {"value": 0.9}} for size in range(10, 18)]


class TestAcross:
    def test_ranks_and_friedman_from_eight_tasks_on(self):
        plan = fixed(3, tasks=EIGHT_TASKS)
        runs = play_runs(plan, noisy([0.80, 0.97, 0.90]))
        seconds = {0: 30.0, 1: 10.0, 2: 20.0}
        runs = [replace(one, hit=TargetHit(step=10, wall_seconds=seconds[one.cell.optimizer])) for one in runs]
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
        first = next(one for one in across.profiles if one.label == "adam lr=0.002")
        assert first.shares == [1.0] * len(first.ratios)

    def test_fewer_tasks_give_a_description(self):
        plan = fixed(3, tasks=EIGHT_TASKS[:2])
        found = answer(plan, play_runs(plan, noisy([0.80, 0.97, 0.90])))
        assert found.across.critical_difference is None
        assert found.across.cannot_say
        assert "a description, not a test" in found.verdict[-1]

    def test_miss_counts_as_later_than_any_hit(self):
        plan = fixed(2, tasks=EIGHT_TASKS[:1])
        runs = play_runs(plan, noisy([0.9, 0.95]))
        met = TargetHit(step=50, wall_seconds=5.0)
        task = answer(plan, [replace(one, hit=met if one.cell.optimizer else None) for one in runs]).tasks[0]
        to_target = {one.label: one for one in task.to_target}
        (first,) = task.first_to_target
        assert (first.a, first.a_first, first.b_first, first.p) == ("adam lr=0.002", 5, 0, None)
        assert "needs 6 seeds" in first.cannot_say
        assert (to_target["adam lr=0.002"].reached, to_target["adam lr=0.002"].steps) == (5, 50)
        assert (to_target["adam lr=0.001"].reached, to_target["adam lr=0.001"].steps) == (0, None)


def test_cost_is_relative_to_the_cheapest():
    plan = fixed(2)
    runs = [
        run(one.cell, one.result, train_seconds=1.0 + one.cell.optimizer) for one in play_runs(plan, noisy([0.9, 0.9]))
    ]
    costs = answer(plan, runs).tasks[0].cost
    assert [cost.ratio for cost in costs] == [1.0, 2.0]
    assert [cost.milliseconds_per_step for cost in costs] == [10.0, 20.0]
    assert costs[0].optimizer_state_bytes == 8000


def test_progress_counts_and_estimates():
    plan = planned()
    found = answer(plan, play_runs(plan, lambda c: RUNNING if c.trial else scored(0.5)), status="running")
    assert (found.progress.phase, found.progress.running, found.progress.succeeded) == ("tuning", 6, 2)
    assert found.progress.seconds_left == pytest.approx(3.0 * (2 * 9 - 2))


def most(reports):
    """False reports at a rate of 5 %; more are seen once in 200 times."""
    return binom.isf(0.005, reports, 0.05)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    ("seeds", "reports"),
    [(5, 400), ({"max": 20, "looks": [5, 10, 20]}, 200), ({"max": 8, "looks": "any"}, 100)],
)
def test_equal_optimizers_get_false_verdicts_in_at_most_5_percent(count, seeds, reports):
    """The whole way, from the order of the runs to the words; values of a seed hang together, as they do."""
    reports = replicates(reports)
    plan = fixed(count, seeds=seeds)
    rng = np.random.default_rng(11)
    false = 0
    for _ in range(reports):
        shared, own = rng.normal(0, 0.01, 20), rng.normal(0, 0.01, (count, 20))
        runs = play_runs(plan, lambda c, s=shared, o=own: scored(float(0.9 + s[c.seed] + o[c.optimizer, c.seed])))
        (task,) = answer(plan, runs).tasks
        significant = any(pair.significant for pair in task.pairs)
        false += significant
        assert significant or not task.verdict.decided
    assert false <= most(reports)


def test_dropped_optimizer_causes_no_false_verdicts_on_the_others():
    """Two equal ones and one that gets no seeds after the first look: false reports on the two, as above."""
    plan = fixed(3, seeds={"max": 20, "looks": [5, 10, 20]})
    rng = np.random.default_rng(12)
    false, reports = 0, replicates(200)
    for _ in range(reports):
        own = rng.normal(0, 0.01, (3, 20)) - np.array([[0.0], [0.0], [0.3]])
        runs = play_runs(plan, lambda c, o=own: scored(float(0.9 + o[c.optimizer, c.seed])))
        assert len([one for one in runs if one.cell.optimizer == 2]) < 20
        (task,) = answer(plan, runs).tasks
        false += any(pair.significant for pair in task.pairs if "0.003" not in pair.a + pair.b)
    assert false <= most(reports)
