"""The demo's study: its request, the check against the reference table, and the printed findings."""

import io
import math
from uuid import uuid4

import pytest
from rich.console import Console

from kotrain import findings
from kotrain.first_look import FIXED_RATE, RATES, agrees, first_look, reference
from service.comparisons.answers import GroupView, PairDetail, TaskAnswer
from service.comparisons.design.plan import Cell
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve

TASKS, OPTIMIZERS, TUNED = range(2), range(7), (5, 6)


@pytest.fixture(scope="module")
def plan():
    return resolve(ComparisonRequest.model_validate(first_look()))


class TestRequest:
    def test_has_150_runs_and_one_family_of_pairs(self, plan):
        assert (plan.jobs(), plan.pairs) == (2 * (2 * 4 * 5 + 7 * 5), 2 * 21)
        assert [optimizer.label for optimizer in plan.optimizers if optimizer.is_tuned] == [
            "Adam tuned",
            "KO hard tuned",
        ]
        assert {tuple(trial["lr"] for trial in plan.optimizers[number].trials) for number in TUNED} == {RATES}

    def test_tuning_uses_neither_test_set_nor_report_seeds(self, plan):
        cells = [Cell("tuning", task, number, 0, 0, seed) for task in TASKS for number in TUNED for seed in (100, 104)]
        assert not any(plan.spec(cell)["evaluate_test"] for cell in cells)
        largest = resolve(ComparisonRequest.model_validate(first_look(seeds=100, tuning_seeds=100)))
        assert not set(largest.seeds) & set(largest.tuning_seeds)

    def test_tuning_that_chooses_fixed_rate_adds_no_run(self, plan):
        for fixed, tuned in ((0, 5), (3, 6)):
            chosen = Cell("report", 1, tuned, RATES.index(FIXED_RATE), 0, 0)
            assert plan.spec(chosen) == plan.spec(Cell("report", 1, fixed, 0, 0, 0))

    def test_each_group_has_a_reference(self, plan):
        for task in plan.tasks:
            for optimizer in plan.optimizers:
                for trial in optimizer.trials:
                    assert 0.8 < reference(task.label, group(optimizer.label, trial["lr"])).mean < 1


def group(label, lr, mean=0.9, interval=(0.8, 1.0)):
    absent = dict.fromkeys(GroupView.model_fields)
    fields = {"label": label, "optimizer": {"name": "x", "params": {"lr": lr}}, "n": 5, "mean": mean, "sd": 0.01}
    return GroupView.model_validate(
        {**absent, **fields, "interval": interval, "diverged": 0, "jobs": [], "diverged_jobs": []}
    )


DETAIL = dict.fromkeys(PairDetail.model_fields)


def pair(a, b, difference, interval):
    return {"a": a, "b": b, "n": 5, "difference": difference, "interval": interval, "p": 0.01, "p_adjusted": 0.02,
            "significant": True, "seeds_needed": None, "detail": DETAIL, "cannot_say": None}  # fmt: skip


def trial(number, score):
    params = {"lr": RATES[number]}
    return {"trial": number, "params": params, "rung": 0, "budget": {}, "score": score, "status": "finished",
            "seconds": 1.0, "jobs": [uuid4()]}  # fmt: skip


@pytest.fixture
def task():
    groups = [
        group("KO soft", 1e-3, 0.9669, (0.96, 0.97)),
        group("KO bounded", 1e-3, None, None),
        group("KO hard tuned", 1e-2, 0.95, (0.93, 0.97)),
        group("Adam tuned", 1e-2, 0.93, (0.92, 0.94)),
        group("Adam", 1e-3, 0.9205, (0.91, 0.93)),
    ]
    document = {
        "label": "condensed",
        "dataset": "digits",
        "model": "mlp",
        "metric": "test_accuracy",
        "group_by": "optimizer",
        "target": None,
        "held_fixed": {},
        "groups": groups,
        "pairs": [
            pair("KO soft", "Adam", 0.0464, (0.038, 0.055)),
            pair("Adam tuned", "KO soft", -0.0173, (-0.029, -0.005)),
            pair("Adam tuned", "KO hard tuned", -0.004, (-0.010, 0.002)),
            pair("KO bounded", "Adam", None, None),
        ],
        "verdict": {"decided": False, "best": None, "text": "Nothing is decided."},
        "left_out": dict.fromkeys(("unfinished", "failed", "cancelled", "without_metric", "repeated"), 0),
        "tuning": [
            {"label": "Adam tuned", "metric": "val_accuracy", "trials": [trial(n, 0.9 + n / 100) for n in range(4)],
             "chosen": 3, "params": {"lr": 1e-2}, "at_edge": ["lr"], "expected_best": [], "good_range": None,
             "seconds": 1.0}
        ],
        "cost": [
            {**dict.fromkeys(("milliseconds_per_step", "ratio", "peak_bytes", "optimizer_state_bytes", "parameters")),
             "label": optimizer.label, "train_seconds": 1.25, "shared": True}
            for optimizer in groups
        ],
        "to_target": [], "first_to_target": [],
        "missing": [],
    }  # fmt: skip
    return TaskAnswer.model_validate(document)


class TestAgreement:
    def test_agrees_within_measured_interval(self):
        assert agrees("condensed", group("KO soft", 1e-3, 0.9669))
        assert not agrees("condensed", group("Adam tuned", 1e-2, 0.93, (0.92, 0.94)))  # 0.0196 off
        assert agrees("condensed", group("KO hard tuned", 1e-2, 0.95, (0.93, 0.97)))  # its interval is wide
        assert not agrees("condensed", group("KO hard tuned", 1e-2, 0.95, None))
        assert not agrees("condensed", group("SGD", 0.1, None, None))

    def test_agrees_within_interval_of_table(self):
        """Another CPU measured 0.9604 with a narrow interval; the table has 0.9496 with a wide one."""
        assert agrees("condensed", group("Adam tuned", 1e-2, 0.9604, (0.9571, 0.9636)))
        assert not agrees("condensed", group("Adam tuned", 1e-2, 0.9496 + 0.0140, (0.9603, 0.9669)))
        assert not agrees("ordinary", group("SGD", 0.1, 0.9671 - 0.0108, (0.9531, 0.9595)))

    def test_agrees_within_one_hundredth(self):
        assert agrees("ordinary", group("SGD", 0.1, 0.9671 - 0.0099, None))
        assert not agrees("ordinary", group("SGD", 0.1, 0.9671 - 0.0101, None))


class TestFindings:
    def test_lead_in_either_order_of_pair(self, task):
        lead = findings.lead(task, "KO soft", "Adam")
        assert (lead.difference, lead.interval) == (0.0464, (0.038, 0.055))
        lead = findings.lead(task, "KO soft", "Adam tuned")
        assert (lead.a, lead.b, lead.difference, lead.interval) == ("KO soft", "Adam tuned", 0.0173, (0.005, 0.029))
        assert findings.lead(task, "Adam", "Adam tuned") is None
        assert findings.lead(task, "KO bounded", "Adam") is None

    def test_sentences_cover_fixed_and_tuned_rates(self, task):
        assert findings.sentences(task) == (
            "At the fixed learning rate 0.001, KO soft leads Adam by 4.6 percentage points (95 % interval +3.8 to "
            "+5.5; 5 paired seeds).\n"
            "Adam, tuned on validation data, uses lr 0.01: KO soft at lr 0.001 leads it by 1.7 percentage points (95 % "
            "interval +0.5 to +2.9; 5 paired seeds);\n"
            "KO hard, tuned to lr 0.01, leads it by 0.4 percentage points (95 % interval -0.2 to +1.0, which "
            "includes 0; 5 paired seeds)."
        )

    @pytest.mark.parametrize("is_reference", [True, False])
    def test_writes_tables_and_check(self, task, is_reference):
        out = io.StringIO()
        answer = Answer(task)
        agreed = findings.write(Console(file=out, width=200), answer, is_reference=is_reference)
        text = out.getvalue()
        lines = [" ".join(line.split()) for line in text.splitlines()]
        expected = "0.9496 -0.0196" if is_reference else "- -"
        assert f"Adam 0.01 tuned 5 0.9300 ± 0.0100 0.9200 .. 0.9400 1.25 {expected}" in lines
        assert "Adam tuned 0.9000 0.9100 0.9200 0.9300 0.01" in lines
        assert "KO soft Adam tuned +1.73 +0.50 .. +2.90 0.020" in lines
        assert "KO bounded Adam - - -" in lines
        assert "Verdict of the comparison, adjusted for 42 pairs" in text
        assert "Nothing is decided." in text
        assert agreed is not is_reference
        assert ("Adam tuned at lr 0.01 deviates by 0.0196 from its reference." in lines) is is_reference
        explanation = "deviates by 0.0166 from its reference, within the spread over seeds."
        assert (f"KO hard tuned at lr 0.01 {explanation}" in lines) is is_reference
        assert ("KO bounded at lr 0.001 has no mean." in lines) is is_reference


class Answer:
    """The printed part of a ComparisonAnswer."""

    def __init__(self, task):
        self.tasks, self.verdict = [task], [task.verdict.text]
        self.plan = self
        self.pairs = math.comb(7, 2) * 2
        self.optimizers = [{"label": optimizer["label"]} for optimizer in first_look()["optimizers"]]
