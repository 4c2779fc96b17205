"""The runs that a comparison's schedule requests, round by round, given synthetic results."""

import random

import numpy as np
import pytest

from service.comparisons.design import schedule
from service.comparisons.design.plan import Cell, Plan
from service.comparisons.design.results import Result
from service.comparisons.design.schedule import TaskResults
from tests.unit.service.comparisons.plans import DIVERGED, FAILED, RUNNING, TASK, fixed, make_plan, scored


def play(plan: Plan, result, order: random.Random | None = None) -> dict[Cell, Result]:
    """Give requested cells `result(cell)` until none is requested; with `order`, one at a time in random order."""
    results: dict[Cell, Result] = {}
    while missing := [cell for cell in schedule.due(plan, results) if cell not in results]:
        for cell in [order.choice(missing)] if order else missing:
            results[cell] = result(cell)
    return results


class TestTuning:
    def test_no_run_is_reported_before_a_trial_is_chosen(self):
        plan = make_plan()
        assert {cell.phase for cell in schedule.due(plan, {})} == {"tuning"}

    def test_optimizers_proceed_independently(self):
        plan = make_plan()
        results = {cell: scored(0.5) for cell in schedule.due(plan, {}) if cell.optimizer == 0}
        reported = [cell for cell in schedule.due(plan, results) if cell.phase == "report"]
        assert {cell.optimizer for cell in reported} == {0}
        assert len(reported) == 5

    def test_reports_best_trial_on_validation_with_fresh_seeds(self):
        results = play(make_plan(), lambda cell: scored(0.9 if cell.trial == 2 else 0.5))
        reported = [cell for cell in results if cell.phase == "report"]
        assert {cell.trial for cell in reported} == {2}
        assert sorted({cell.seed for cell in reported}) == [0, 1, 2, 3, 4]

    def test_ties_go_to_the_lower_loss(self):
        plan = make_plan()
        results = play(plan, lambda cell: scored(0.9, loss=[0.4, 0.2, 0.3, 0.5][cell.trial]))
        assert TaskResults(plan, results, 0).chosen.get(0) == 1

    def test_loss_endpoint_ranks_trials_by_loss(self):
        plan = make_plan(metric="test_loss")
        results = play(plan, lambda cell: scored(0.9 - 0.1 * cell.trial, loss=[0.4, 0.2, 0.3, 0.5][cell.trial]))
        assert TaskResults(plan, results, 0).chosen.get(0) == 1

    def test_trials_are_ranked_by_mean_over_seeds(self):
        plan = make_plan(tuning={"trials": 2, "seeds": 2})
        values = {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.6, (1, 1): 0.6}
        results = play(plan, lambda cell: scored(values.get((cell.trial, cell.seed - 10**6), 0.5)))
        assert TaskResults(plan, results, 0).chosen.get(0) == 1

    def test_trial_with_a_diverged_seed_ranks_last(self):
        plan = make_plan(tuning={"trials": 2, "seeds": 2})
        results = play(plan, lambda c: DIVERGED if (c.trial, c.seed) == (0, 10**6) else scored(0.9 - 0.5 * c.trial))
        assert TaskResults(plan, results, 0).chosen.get(0) == 1

    def test_reports_one_trial_if_all_diverge(self):
        plan = make_plan()
        results = play(plan, lambda cell: DIVERGED if cell.optimizer == 0 else scored(0.5))
        assert TaskResults(plan, results, 0).chosen.get(0) == 0
        assert len([cell for cell in results if cell.phase == "report" and cell.optimizer == 0]) == 5

    def test_optimizer_without_result_is_not_reported_and_the_others_proceed(self):
        plan = make_plan(seeds={"max": 4, "looks": [2, 4]})
        results = play(plan, lambda cell: FAILED if cell.optimizer == 0 else scored(0.5))
        assert TaskResults(plan, results, 0).chosen.get(0) is None
        assert {cell.optimizer for cell in results if cell.phase == "report"} == {1}

    def test_failed_trial_is_not_chosen(self):
        plan = make_plan()
        results = play(plan, lambda cell: FAILED if cell.trial == 0 else scored(0.5 - 0.1 * cell.trial))
        assert TaskResults(plan, results, 0).chosen.get(0) == 1


class TestHalving:
    def result(self, cell: Cell) -> Result:
        return scored(0.1 * ((cell.trial * 7) % 9))  # trial 5 is best: 8, then 1 (7), then 6 (6)

    def test_best_third_gets_three_times_the_budget(self):
        plan = make_plan(tuning={"trials": 9, "method": "halving"})
        results = play(plan, self.result)
        rungs = {
            rung: {cell.trial for cell in results if cell[:3] == ("tuning", 0, 0) and cell.rung == rung}
            for rung in (0, 1)
        }
        assert rungs == {0: set(range(9)), 1: {5, 1, 6}}
        assert TaskResults(plan, results, 0).chosen.get(0) == 5

    @pytest.mark.parametrize("seed", range(5))
    def test_is_independent_of_the_order_in_which_jobs_end(self, seed):
        plan = make_plan(tuning={"trials": 9, "method": "halving"})
        assert play(plan, self.result, random.Random(seed)).keys() == play(plan, self.result).keys()

    def test_trial_that_is_certain_of_promotion_does_not_wait(self):
        plan = make_plan(tuning={"trials": 9, "method": "halving"})
        first = [cell for cell in schedule.due(plan, {}) if cell.optimizer == 0]
        ended = {cell: self.result(cell) for cell in first if cell.trial != 0}
        ended |= {cell: RUNNING for cell in first if cell.trial == 0}
        assert {cell.trial for cell in schedule.due(plan, ended) if cell.rung == 1} == {5, 1}

    def test_optimizers_get_equal_numbers_of_runs(self):
        plan = make_plan(tuning={"trials": 12, "method": "halving", "reduction": 2})
        rng = np.random.default_rng(0)
        results = play(plan, lambda cell: scored(rng.random()))
        counts = [len([c for c in results if c.phase == "tuning" and c.optimizer == optimizer]) for optimizer in (0, 1)]
        assert counts == [12 + 6 + 3] * 2


class TestLooks:
    def test_clear_difference_ends_at_the_first_look(self):
        plan = fixed(2, seeds={"max": 20, "looks": [5, 10, 20]})
        noise = np.random.default_rng(0).normal(0, 0.001, (2, 20))
        results = play(plan, lambda cell: scored(0.9 - 0.1 * cell.optimizer + noise[cell.optimizer, cell.seed]))
        assert len(results) == 10
        assert TaskResults(plan, results, 0).looks_done == [1, 1]

    def test_equal_optimizers_run_to_the_last_look(self):
        plan = fixed(2, seeds={"max": 20, "looks": [5, 10, 20]})
        noise = np.random.default_rng(1).normal(0, 0.01, (2, 20))
        results = play(plan, lambda cell: scored(0.9 + noise[cell.optimizer, cell.seed]))
        assert len(results) == 40
        assert TaskResults(plan, results, 0).looks_done == [3, 3]

    def test_optimizer_significantly_behind_gets_no_more_seeds(self):
        plan = fixed(3, seeds={"max": 20, "looks": [5, 10, 20]})
        noise = np.random.default_rng(2).normal(0, 0.005, (3, 20))
        results = play(plan, lambda cell: scored([0.9, 0.9, 0.3][cell.optimizer] + noise[cell.optimizer, cell.seed]))
        assert [len([cell for cell in results if cell.optimizer == optimizer]) for optimizer in range(3)] == [20, 20, 5]
        assert TaskResults(plan, results, 0).looks_done == [3, 3, 1]

    def test_tasks_stop_independently(self):
        plan = fixed(2, tasks=[TASK, TASK | {"batch_size": 32}], seeds={"max": 10, "looks": [5, 10]})
        noise = np.random.default_rng(3).normal(0, 0.002, (2, 10))
        gap = [0.3, 0.0]
        results = play(
            plan, lambda cell: scored(0.5 + gap[cell.task] * cell.optimizer + noise[cell.optimizer, cell.seed])
        )
        assert [len([cell for cell in results if cell.task == task]) for task in (0, 1)] == [10, 20]

    def test_runs_beyond_a_look_are_ignored(self):
        plan = fixed(2, seeds={"max": 20, "looks": [5, 20]})
        noise = np.random.default_rng(4).normal(0, 0.01, (2, 20))
        results = play(plan, lambda cell: scored(0.9 + noise[cell.optimizer, cell.seed]))
        half = {cell: result if cell.seed < 12 else RUNNING for cell, result in results.items()}
        assert TaskResults(plan, half, 0).looks_done == [1, 1]

    def test_looks_after_every_seed(self):
        plan = fixed(2, seeds={"max": 30, "looks": "any"})
        noise = np.random.default_rng(5).normal(0, 0.002, (2, 30))
        results = play(plan, lambda cell: scored(0.9 - 0.1 * cell.optimizer + noise[cell.optimizer, cell.seed]))
        assert 6 <= len(results) < 20

    def test_optimizer_with_a_lost_run_gets_no_more_seeds_and_the_others_proceed(self):
        plan = fixed(3, seeds={"max": 10, "looks": [5, 10]})
        noise = np.random.default_rng(6).normal(0, 0.01, (3, 10))
        results = play(
            plan, lambda c: FAILED if c.seed == 3 and c.optimizer == 2 else scored(0.9 + noise[c.optimizer, c.seed])
        )
        assert [len([cell for cell in results if cell.optimizer == optimizer]) for optimizer in range(3)] == [10, 10, 5]


def test_diverged_run_has_the_declared_score():
    plan = fixed(2)
    assert TaskResults(plan, {}, 0).score(DIVERGED) == 0.1
    assert TaskResults(fixed(2, metric="test_loss"), {}, 0).score(DIVERGED) is None
    assert TaskResults(plan, {}, 0).score(FAILED) is None
    assert TaskResults(plan, {}, 0).score(RUNNING) is None
