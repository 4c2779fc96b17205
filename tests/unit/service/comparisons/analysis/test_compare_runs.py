"""Comparison of stored runs: numbers, targets, verdicts and diverged runs."""

import json
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from service.comparisons.analysis.compare_runs import compare_runs
from service.comparisons.analysis.runs import StoredRun
from service.comparisons.design.results import Result
from service.errors import Invalid
from service.specs.states import JobStatus, Reason
from service.specs.summary import Target, TargetHit
from service.specs.training import TrainSpec
from tests.thoroughness import replicates

TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}
START = datetime(2026, 1, 1, tzinfo=UTC)
ADAM = [0.951, 0.949, 0.953, 0.947, 0.950]
KO = [0.967, 0.966, 0.970, 0.962, 0.965]
BOUNDED = [0.966, 0.968, 0.969, 0.960, 0.967]


def adam(lr=0.001):
    return {"name": "adam", "params": {"lr": lr}}


def ko(lr=0.001, **params):
    return {"name": "ko", "params": {"base": "adam", "lr": lr, **params}}


class Runs:
    """Stored runs, added one optimizer at a time."""

    def __init__(self):
        self.all = []

    def add(self, optimizer, values, *, hits=(), reason=Reason.COMPLETED, seeds=None, **fields):
        seeds = range(len(values)) if seeds is None else seeds
        for seed, value, hit in zip(seeds, values, [*hits, *[None] * (len(values) - len(hits))], strict=True):
            body = {**TASK, "optimizer": optimizer, "seed": seed, **fields}
            number = len(self.all)
            self.all.append(
                StoredRun(
                    job=UUID(int=number),
                    spec=TrainSpec.model_validate_json(json.dumps(body)).model_dump(mode="json", exclude={"seed"}),
                    seed=seed,
                    environment={"device_kind": "cpu"},
                    result=Result(reason.status if reason else JobStatus.RUNNING, reason, value),
                    hit=hit and TargetHit(step=hit, wall_seconds=hit / 100),
                    finished_at=START + timedelta(seconds=number) if reason else None,
                )
            )
        return self

    def compare(self, metric="test_accuracy", group_by="optimizer", target=None):
        return compare_runs(self.all, dataset="digits", model="mlp", group_by=group_by, metric=metric, target=target)


class TestNumbers:
    def test_agree_with_scipy(self):
        answer = Runs().add(adam(), ADAM).add(ko(), KO).compare()
        assert [group.label for group in answer.groups] == ["ko soft (adam)", "adam"]  # best mean first
        best = answer.groups[0]
        assert (best.n, best.best, best.diverged) == (5, 0.970, 0)
        assert best.mean == pytest.approx(0.966)
        assert best.sd == pytest.approx(reference.tstd(KO))
        (pair,) = answer.pairs
        expected = reference.ttest_rel(KO, ADAM)
        assert (pair.a, pair.b, pair.n) == ("ko soft (adam)", "adam", 5)
        assert pair.difference == pytest.approx(0.016)
        assert pair.p == pytest.approx(expected.pvalue)
        assert pair.p_adjusted == pair.p
        assert pair.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert answer.held_fixed["lr"] == 0.001

    def test_pairs_by_seed(self):
        runs = Runs().add(adam(), [0.90, 0.80, 0.70, 0.60], seeds=[3, 2, 1, 9])
        answer = runs.add(ko(), [0.71, 0.82, 0.93], seeds=[1, 2, 3]).compare()
        pair = answer.pairs[0]
        assert pair.n == 3
        assert pair.difference == pytest.approx(0.02)

    def test_p_is_adjusted_over_all_pairs(self):
        answer = Runs().add(adam(), ADAM).add(ko(), KO).add(ko(bounded=True), BOUNDED).compare()
        raw = sorted(pair.p for pair in answer.pairs)
        assert sorted(pair.p_adjusted for pair in answer.pairs) == pytest.approx(
            [3 * raw[0], max(3 * raw[0], 2 * raw[1]), raw[2]]
        )

    def test_smaller_loss_is_better(self):
        answer = Runs().add(adam(), [0.5, 0.6, 0.7]).add(ko(), [0.1, 0.21, 0.29]).compare("test_loss")
        assert [group.label for group in answer.groups] == ["ko soft (adam)", "adam"]
        assert answer.groups[0].best == 0.1
        assert answer.verdict.best == "ko soft (adam)"
        assert answer.pairs[0].difference == pytest.approx(-0.4)
        assert "by 0.4 in test loss (lower is better; 95 % interval 0.375 to 0.425)" in answer.verdict.text

    def test_rejects_metric_without_direction(self):
        with pytest.raises(Invalid, match="neither higher nor lower"):
            Runs().compare("grad_norm")

    @pytest.mark.parametrize("field", ["batch_size", "precision"])
    def test_groups_by_other_fields(self, field):
        runs = Runs()
        for value in {"batch_size": [32, 64], "precision": ["fp32", "bf16"]}[field]:
            runs.add(adam(), ADAM, **{field: value})
        answer = runs.compare(group_by=field)
        assert {group.label for group in answer.groups} == {
            f"{field}={value}" for value in {"batch_size": [32, 64], "precision": ["fp32", "bf16"]}[field]
        }
        assert answer.held_fixed["optimizer.name"] == "adam"

    def test_rejects_mixed_settings(self):
        with pytest.raises(Invalid) as caught:
            Runs().add(adam(), ADAM).add(ko(), KO, batch_size=32).compare()
        assert [error.pointer for error in caught.value.errors] == ["/batch_size"]

    def test_counts_runs_that_are_left_out(self):
        runs = Runs().add(adam(), ADAM).add(adam(), [0.95], seeds=[0])
        runs.add(adam(), [None, None], evaluate_test=False).add(ko(), [None], reason=None)
        runs.add(ko(), [None] * 3, reason=Reason.OUT_OF_MEMORY).add(ko(), [None], reason=Reason.CANCELLED)
        answer = runs.compare()
        assert answer.left_out.model_dump() == {
            "unfinished": 1,
            "failed": 3,
            "cancelled": 1,
            "without_metric": 2,
            "repeated": 1,
        }
        assert [group.n for group in answer.groups] == [5]


class TestTarget:
    TARGET = Target(value=0.95)

    def test_median_counts_misses_as_later_than_any_hit(self):
        runs = Runs().add(adam(), ADAM, hits=[300, 100, 200, None]).add(ko(), KO, hits=[100, 200])
        answer = runs.compare(target=self.TARGET)
        steps = {group.label: (group.steps_to_target, group.seconds_to_target) for group in answer.groups}
        assert steps == {"adam": (300, 3.0), "ko soft (adam)": (None, None)}
        assert answer.target == self.TARGET

    def test_diverged_run_misses_the_target(self):
        runs = Runs().add(adam(), [0.9, 0.9], hits=[100, 200])
        runs.add(adam(), [None, None], hits=[10, 20], seeds=[2, 3], reason=Reason.DIVERGED)
        assert runs.compare(target=self.TARGET).groups[0].steps_to_target is None

    def test_common_target_of_the_jobs_is_used_by_default(self):
        runs = Runs().add(adam(), ADAM, hits=[100] * 5, target={"value": 0.9})
        assert runs.compare().target == Target(value=0.9)
        assert runs.compare().groups[0].steps_to_target == 100
        answer = runs.add(ko(), KO, hits=[100] * 5, target={"value": 0.8}).compare()
        assert answer.target is None
        assert [group.steps_to_target for group in answer.groups] == [None, None]


class TestVerdict:
    def test_names_best_group(self):
        verdict = Runs().add(adam(), ADAM).add(ko(), KO).compare().verdict
        assert (verdict.decided, verdict.best) == (True, "ko soft (adam)")
        assert verdict.text == (
            "ko soft (adam) is best, with a mean test accuracy of 96.6 % over 5 seeds: it leads adam by 1.60 "
            "percentage points (95 % interval 1.48 to 1.72), p < 0.001. "
            "The result applies only to learning rate 0.001, which was not tuned per optimizer, and to one split of "
            "the data."
        )

    def test_names_every_group_that_the_best_one_beats(self):
        runs = Runs().add(ko(), KO).add(adam(), ADAM)
        for lr, shift in ((0.1, 0.02), (0.2, 0.04)):
            runs.add({"name": "sgd", "params": {"lr": lr}}, [value - shift for value in BOUNDED])
        assert "; it is also significantly better than sgd lr=0.1 and sgd lr=0.2. " in runs.compare().verdict.text

    def test_names_the_groups_that_beat_one_that_the_best_does_not_beat(self):
        runs = Runs().add(ko(), KO).add(adam(), ADAM + ADAM)
        sgd = {"name": "sgd", "params": {"lr": 0.001}}
        verdict = runs.add(sgd, [0.901, 0.899, 0.903, 0.897, 0.902], seeds=range(5, 10)).compare().verdict
        assert verdict.best == "ko soft (adam)"
        assert "pairs. sgd is significantly behind adam, though not behind ko soft (adam). " in verdict.text
        assert "also significantly better" not in verdict.text

    def test_undecided_if_groups_cannot_be_distinguished(self):
        verdict = Runs().add(ko(), KO).add(ko(bounded=True), BOUNDED).compare().verdict
        assert (verdict.decided, verdict.best) == (False, None)
        assert verdict.text == (
            "ko bounded (adam) and ko soft (adam) cannot be distinguished with 5 seeds: the mean difference in test "
            "accuracy is 0.00 percentage points (95 % interval -0.23 to 0.23). ko bounded (adam) has the best mean "
            "test accuracy (96.6 % over 5 seeds). "
            "The result applies only to learning rate 0.001, which was not tuned per optimizer, and to one split of "
            "the data."
        )

    def test_undecided_if_best_does_not_beat_every_other(self):
        verdict = Runs().add(adam(), ADAM).add(ko(), KO).add(ko(bounded=True), BOUNDED).compare().verdict
        assert not verdict.decided
        assert " adam is significantly behind at least one other optimizer." in verdict.text

    def test_undecided_if_significant_before_correction_only(self):
        generator = random.Random(5)
        runs = Runs().add(adam(), [0.90, 0.91, 0.92, 0.93]).add(ko(), [0.911, 0.915, 0.936, 0.938])
        for gamma in (0.2, 0.3, 0.4):
            runs.add(ko(gamma=gamma), [generator.uniform(0.90, 0.93) for _ in range(4)])
        answer = runs.compare()
        pair = next(pair for pair in answer.pairs if {pair.a, pair.b} == {"adam", "ko soft (adam) gamma=0.1"})
        assert pair.p < 0.05 < pair.p_adjusted
        assert not answer.verdict.decided

    @pytest.mark.parametrize("n", [1, 2])
    def test_states_too_few_seeds(self, n):
        verdict = Runs().add(adam(), ADAM[:n]).add(ko(), KO[:n]).compare().verdict
        assert not verdict.decided
        assert verdict.text.startswith("Too few seeds: ")

    def test_states_missing_shared_seeds(self):
        answer = Runs().add(adam(), ADAM).add(ko(), KO, seeds=range(10, 15)).compare()
        assert answer.pairs[0].cannot_say == "there are no shared seeds"
        assert "share no seeds" in answer.verdict.text

    def test_undecided_if_difference_does_not_vary(self):
        answer = Runs().add(adam(), [0.9, 0.8, 0.7]).add(ko(), [0.95, 0.85, 0.75]).compare()
        text = answer.verdict.text
        assert "(the paired differences are all equal): ko soft (adam) leads by 5.00 percentage points" in text
        assert not answer.verdict.decided

    def test_states_unequal_learning_rates(self):
        text = Runs().add(adam(), ADAM).add({"name": "sgd", "params": {"lr": 0.1}}, KO).compare().verdict.text
        assert "not recorded" in text
        assert "learning rate 0.001" not in text

    def test_text_for_no_group_and_one_group(self):
        assert Runs().compare().verdict.text == "No finished job matches the query."
        only = Runs().add(adam(), ADAM).compare()
        assert only.verdict.text.startswith(
            "Only adam has runs with a score (mean test accuracy of 95.0 % over 5 seeds), so"
        )
        assert (only.pairs, only.verdict.decided) == ([], False)


class TestDiverged:
    def test_group_with_a_diverged_run_cannot_be_best(self):
        runs = Runs().add(adam(), ADAM).add(ko(), KO[:4])
        answer = runs.add(ko(), [0.99], seeds=[4], reason=Reason.DIVERGED).compare()
        best = answer.groups[0]
        assert (best.label, best.n, best.diverged, len(best.jobs)) == ("ko soft (adam)", 4, 1, 5)
        assert best.best == 0.970
        assert answer.pairs[0].n == 4
        assert not answer.verdict.decided
        assert "1 of 5 runs of ko soft (adam) diverged" in answer.verdict.text
        assert answer.verdict.text.startswith(
            "ko soft (adam) leads adam by 1.63 percentage points (95 % interval 1.47 to 1.78), but cannot be best, "
            "because some of its runs diverged. adam has the best mean test accuracy of the optimizers "
            "without diverged runs (95.0 % over 5 seeds)."
        )

    def test_group_of_diverged_runs_does_not_prevent_a_verdict(self):
        runs = Runs().add(adam(), ADAM).add(ko(), KO)
        answer = runs.add(ko(gamma=50.0), [None] * 5, reason=Reason.DIVERGED).compare()
        assert answer.verdict.best == "ko soft (adam) gamma=0.1"
        assert "Every run of ko soft (adam) gamma=50 diverged." in answer.verdict.text
        last = answer.groups[-1]
        assert (last.mean, last.diverged, last.cannot_say) == (None, 5, "no run has a value")

    def test_text_if_all_runs_diverged(self):
        answer = Runs().add(adam(), [None] * 3, reason=Reason.DIVERGED).compare()
        assert answer.verdict.text.startswith("Every run diverged, so there is nothing to compare.")


class TestBaseOptimizerAtSeveralRates:
    def test_states_the_lead_at_one_rate_and_at_the_best_rates(self):
        tuned = [value + 0.014 for value in reversed(ADAM)]
        runs = Runs().add(adam(), ADAM).add(adam(0.01), tuned).add(ko(), KO).add(ko(collision="hard"), BOUNDED)
        text = runs.compare().verdict.text
        assert "At the same learning rate (0.001), ko" in text
        assert "leads adam (0.001) by 1.6" in text
        assert "leads adam (0.01) by 0.2" in text

    def test_states_a_lead_that_reverses(self):
        tuned = [value + 0.03 for value in reversed(ADAM)]
        text = Runs().add(adam(), ADAM).add(adam(0.01), tuned).add(ko(), KO).compare().verdict.text
        assert "ko soft (adam) leads adam (0.001) by 1.6" in text
        assert "ko soft (adam) (0.001) trails adam (0.01) by 1.4" in text

    def test_uses_the_most_frequent_rate(self):
        runs = Runs().add(adam(), ADAM).add(ko(), KO).add(ko(bounded=True), BOUNDED)
        runs.add(adam(0.1), [value / 5 for value in reversed(ADAM)]).add(ko(0.1), KO)
        assert "At the same learning rate (0.001)" in runs.compare().verdict.text


accuracies = st.lists(st.none() | st.floats(0, 1).map(lambda x: round(x, 3)), max_size=5)


@given(st.lists(st.tuples(accuracies, st.sampled_from([Reason.COMPLETED, Reason.DIVERGED])), max_size=4))
def test_random_runs_get_consistent_answers(table):
    runs = Runs()
    for number, (values, reason) in enumerate(table):
        runs.add(ko(gamma=0.1 * (1 + number // 2)), values, reason=reason)
    answer = runs.compare()
    verdict, rows = answer.verdict, {group.label: group for group in answer.groups}
    assert "nan" not in answer.model_dump_json().lower()
    assert verdict.text.endswith((".", "data."))
    assert verdict.decided == (verdict.best is not None)
    if verdict.decided:
        assert rows[verdict.best].diverged == 0
        own = [pair for pair in answer.pairs if verdict.best in (pair.a, pair.b)]
        finished = [group for group in answer.groups if group.n and group.label != verdict.best]
        beaten = [pair for pair in own if pair.p_adjusted is not None and pair.p_adjusted < 0.05 and pair.n >= 3]
        assert len(beaten) == len(finished)


def test_equal_optimizers_get_false_verdicts_in_at_most_5_percent():
    """Of five equal optimizers with five seeds, at most 5 % of reports name a best one."""
    generator = random.Random(1)
    false, reports = 0, replicates(300)
    for _ in range(reports):
        runs = Runs()
        for gamma in (0.1, 0.2, 0.3, 0.4, 0.5):
            runs.add(ko(gamma=gamma), [generator.gauss(0.9, 0.01) for _ in range(5)])
        false += runs.compare().verdict.decided
    assert false / reports <= 0.05
