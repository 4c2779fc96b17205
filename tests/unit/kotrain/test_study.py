from datetime import UTC, datetime
from uuid import uuid4

import pytest

from kotrain import findings, study
from kotrain.study import ADAM, FIXED_RATE, HARD, SOFT, Arm, Outcome, Plan
from service.answers import CompareAnswer
from service.schemas import JobRequest, JobView

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(val_accuracy, val_loss, *, status="succeeded", reason="completed"):
    """A job that has ended with these."""
    summary = {
        "reason": reason,
        "steps": 390,
        "epochs": 30,
        "train_seconds": 2.0,
        "total_seconds": 3.0,
        "parameters": 10,
        "metrics": {"val_accuracy": val_accuracy, "val_loss": val_loss},
        "best_step": None,
        "target": None,
    }
    nothing = dict.fromkeys(JobView.model_fields)
    known = {
        "id": uuid4(),
        "status": status,
        "reason": reason,
        "user": "ada",
        "spec": {},
        "tags": {},
        "priority": 0,
        "max_failures": 3,
        "attempt": 1,
        "failures": 0,
        "cancel_requested": False,
        "progress": {"step": 390, "total_steps": 390},
        "created_at": NOW,
        "summary": summary,
    }
    return JobView.model_validate({**nothing, **known})


class TestPlan:
    def test_every_run_is_a_valid_submission(self):
        plan = Plan()
        runs = [*study.tuning_runs(plan), *study.reported_runs(plan, study.fixed_arms())]
        assert len(runs) == len(set(runs)) == 2 * 2 * 4 * 5 + 2 * 5 * 5
        for run in runs:
            JobRequest.model_validate(run.spec(plan.epochs))

    def test_tuning_never_sees_the_test_set_nor_a_reported_seed(self):
        tuning, reported = study.tuning_runs(Plan()), study.reported_runs(Plan(), study.fixed_arms())
        assert not any(run.spec(30)["evaluate_test"] for run in tuning)
        assert all(run.spec(30)["evaluate_test"] for run in reported)
        assert not {run.seed for run in tuning} & {run.seed for run in reported}

    def test_a_chosen_rate_that_is_the_fixed_one_is_no_new_run(self):
        fixed = study.reported_runs(Plan(), study.fixed_arms())
        assert set(study.reported_runs(Plan(), [Arm("condensed", ADAM, FIXED_RATE)])) <= set(fixed)

    def test_every_arm_has_a_reference(self):
        arms = [*study.fixed_arms(), *(run.arm for run in study.tuning_runs(Plan()))]
        assert all(0.8 < arm.reference < 1 for arm in arms)


class TestChoice:
    def chosen(self, scores):
        """What is chosen for condensed Adam when its runs end like this, by rate."""
        jobs = {run: ended(0.5, 1.0) for run in study.tuning_runs(Plan(tuning_seeds=2))}
        for run in jobs:
            if (run.arm.init, run.arm.candidate) == ("condensed", ADAM) and run.arm.lr in scores:
                jobs[run] = scores[run.arm.lr][run.seed - 100]
        return study.choose(study.validation(jobs))["condensed", ADAM].lr

    def test_best_mean_validation_accuracy(self):
        assert self.chosen({3e-3: [ended(0.9, 1), ended(0.7, 1)], 1e-2: [ended(0.79, 1), ended(0.8, 1)]}) == 3e-3

    def test_ties_go_to_the_lower_loss(self):
        assert (
            self.chosen({1e-3: [ended(0.9, 0.5)] * 2, 3e-3: [ended(0.9, 0.3)] * 2, 1e-2: [ended(0.9, 0.4)] * 2}) == 3e-3
        )

    def test_a_rate_that_diverged_once_is_not_chosen(self):
        diverged = ended(0.99, 0.1, status="failed", reason="diverged")
        assert self.chosen({1e-2: [ended(0.99, 0.1), diverged], 3e-3: [ended(0.6, 1)] * 2}) == 3e-3


def group(label, arm, mean, interval):
    known = {"label": label, "value": None, "optimizer": arm.candidate.at(arm.lr), "n": 5, "mean": mean, "sd": 0.01}
    rest = {"interval": interval, "best": mean, "steps_to_target": None, "seconds_to_target": None}
    return {**known, **rest, "diverged": 0, "jobs": [], "cannot_say": None}


GIVEN, TUNED, KO = Arm("condensed", ADAM, 1e-3), Arm("condensed", ADAM, 1e-2), Arm("condensed", SOFT, 1e-3)
TUNED_HARD = Arm("condensed", HARD, 1e-2)


def pair(a, b, difference, interval):
    return {"a": a, "b": b, "n": 5, "difference": difference, "interval": interval, "p": 0.01, "p_adjusted": 0.02,
            "cannot_say": None}  # fmt: skip


@pytest.fixture
def outcome():
    document = {
        "dataset": "digits",
        "model": "mlp",
        "metric": "test_accuracy",
        "group_by": "optimizer",
        "target": None,
        "held_fixed": {},
        "groups": [
            group("soft", KO, 0.9669, (0.96, 0.97)),
            group("adam 0.001", GIVEN, 0.9205, (0.91, 0.93)),
            group("adam 0.01", TUNED, 0.93, (0.92, 0.94)),
            group("hard 0.01", TUNED_HARD, 0.95, (0.93, 0.97)),
        ],
        "pairs": [
            pair("soft", "adam 0.001", 0.0464, (0.038, 0.055)),
            pair("adam 0.01", "soft", -0.0173, (-0.029, -0.005)),
            pair("adam 0.01", "hard 0.01", -0.004, (-0.010, 0.002)),
        ],
        "verdict": {"decided": False, "best": None, "text": ""},
        "left_out": dict.fromkeys(("unfinished", "failed", "cancelled", "without_metric", "repeated"), 0),
    }
    return Outcome("condensed", CompareAnswer.model_validate(document))


class TestOutcome:
    def test_lead_whichever_way_the_pair_is_stored(self, outcome):
        assert (outcome.lead(KO, GIVEN).difference, outcome.lead(KO, GIVEN).interval) == (0.0464, (0.038, 0.055))
        assert (outcome.lead(KO, TUNED).difference, outcome.lead(KO, TUNED).interval) == (0.0173, (0.005, 0.029))
        assert outcome.lead(GIVEN, TUNED) is None

    def test_agreement_with_the_reference(self, outcome):
        assert outcome.agrees(KO)
        assert not outcome.agrees(TUNED)  # 0.0196 off, and far outside its interval
        assert outcome.agrees(TUNED_HARD)  # 0.0166 off, but so wide is its spread

    def test_sentences_say_both_halves(self, outcome):
        assert findings.sentences(outcome, TUNED, TUNED_HARD) == (
            "At the fixed learning rate 0.001, KO soft leads Adam by 4.6 points (95 % interval +3.8 to +5.5; 5 paired "
            "seeds).\n"
            "Tuned on validation, Adam takes 0.01: KO soft, left at 0.001, leads it by 1.7 points (95 % interval +0.5 "
            "to +2.9; 5 paired seeds);\n"
            "KO hard, tuned likewise (0.01), leads it by 0.4 points (95 % interval -0.2 to +1.0, no difference "
            "included; 5 paired seeds)."
        )
