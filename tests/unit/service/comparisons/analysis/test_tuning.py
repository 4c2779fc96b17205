"""Tuning in the answer to a comparison: trials, choices, and the assumption of equal tuning."""

import math

import pytest

from tests.unit.service.comparisons.analysis.synthetic_runs import answer, noisy, play_runs
from tests.unit.service.comparisons.plans import ADAM, FAILED, RUNNING, SGD, make_plan, scored


class TestTuning:
    def test_lists_trials_and_chosen_trial(self):
        plan = make_plan(optimizers=[ADAM, SGD], tuning={"trials": 5})
        peak = noisy([0.9, 0.8])

        def result(cell):
            lr = plan.optimizers[cell.optimizer].trials[cell.trial]["lr"]
            return scored(peak(cell).value - 0.1 * abs(math.log10(lr) + 2.5))

        report = answer(plan, play_runs(plan, result))
        view = report.tasks[0].tuning[0]
        assert view.chosen == max(range(5), key=lambda trial: view.trials[trial].score)
        assert view.params == view.trials[view.chosen].params
        assert [trial.status for trial in view.trials] == ["finished"] * 5
        assert view.expected_best == sorted(view.expected_best)
        assert view.expected_best[-1] == max(trial.score for trial in view.trials)
        assert view.good_range.decades is not None
        assert "with 5 trials for each tuned optimizer" in report.verdict[0]

    def test_states_chosen_value_at_end_of_range(self):
        plan = make_plan(tuning={"trials": 5})
        report = answer(plan, play_runs(plan, lambda c: scored(plan.optimizers[c.optimizer].trials[c.trial]["lr"])))
        assert report.tasks[0].tuning[0].at_edge == ["lr"]
        assert "edge of the range tried (lr of adam; lr of sgd); a wider range may help." in report.verdict[0]

    @pytest.mark.parametrize(
        ("trials", "holds", "message"),
        [
            (2, None, "too few values were tried: 2 values of lr for adam; 2 values of lr for sgd."),
            (3, None, "3 values of lr"),
            (
                5,
                False,
                "edge of the range tried: lr of adam on digits mlp; lr of sgd on digits mlp.",
            ),
        ],
    )
    def test_does_not_check_end_of_few_values(self, trials, holds, message):
        plan = make_plan(tuning={"trials": trials})
        report = answer(plan, play_runs(plan, lambda c: scored(plan.optimizers[c.optimizer].trials[c.trial]["lr"])))
        edge = next(a for a in report.assumptions if a.name == "chosen values away from the edge of the range")
        assert (edge.holds, message in edge.text) == (holds, True)

    def test_states_parameters_that_were_not_tuned(self):
        lr = {"choice": [0.001, 0.01]}
        optimizers = [
            {"name": "adam", "space": {"lr": lr}},
            {"name": "ko", "space": {"lr": lr, "gamma": {"choice": [0.1, 1.0]}}},
        ]
        for untuned, is_stated in (([], False), (["sgd", "lion", "muon"], True)):
            plan = make_plan(optimizers=[*optimizers, *untuned], tuning={"method": "grid"})
            report = answer(plan, play_runs(plan, noisy([0.9, 0.95, 0.9, 0.9, 0.9])))
            assumption = next(a for a in report.assumptions if a.name == "equal tuning")
            assert not assumption.holds
            assert ("were fixed in the request, not tuned" in assumption.text) == is_stated
        assert (
            "; the hyperparameters of sgd lr=0.1, lion lr=0.0001 and muon lr=0.02 were fixed in the request."
            in report.verdict[0]
        )

    def test_assumptions_on_runs_are_unknown_before_a_run_has_ended(self):
        plan = make_plan(tuning={"trials": 9, "method": "halving"})
        report = answer(plan, play_runs(plan, lambda c: RUNNING), status="running")
        assumptions = {assumption.name: (assumption.holds, assumption.text) for assumption in report.assumptions}
        assert assumptions.pop("pairing")[0] is True
        assert all(holds is None and " yet" in text for holds, text in assumptions.values()), assumptions

    def test_states_failed_trials(self):
        plan = make_plan(tuning={"trials": 4})
        report = answer(
            plan,
            play_runs(plan, lambda c: FAILED if c.phase == "tuning" and c.trial == 1 and c.optimizer else scored(0.5)),
        )
        assert (
            "Optimizers were not tuned with equal effort, because trials failed: 1 of 4 trials of sgd."
            in report.verdict[0]
        )
        assert not next(a for a in report.assumptions if a.name == "equal tuning").holds

    def test_states_unequal_numbers_of_trials(self):
        lr = {"choice": [0.001, 0.01]}
        optimizers = [
            {"name": "adam", "space": {"lr": lr}},
            {"name": "ko", "space": {"lr": lr, "gamma": {"choice": [0.1, 1.0]}}},
        ]
        plan = make_plan(optimizers=optimizers, tuning={"trials": 1, "method": "grid"})
        report = answer(plan, play_runs(plan, noisy([0.9, 0.95])))
        assert "unequal numbers of trials (adam: 2, ko soft (adam): 4)" in report.verdict[0]
        assert not next(a for a in report.assumptions if a.name == "equal tuning").holds
