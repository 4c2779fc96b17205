"""The ready studies are valid requests with the designs that they claim."""

import pytest

from kotrain.studies import STUDIES
from service.comparisons.design.resolve import resolve
from service.config import Settings
from service.specs.catalog.datasets import DATASETS

PRESENT = [["digits"], ["digits", "snips"], list(DATASETS)]


@pytest.mark.parametrize("present", PRESENT, ids=len)
@pytest.mark.parametrize("budget", ["small", "full"])
@pytest.mark.parametrize("name", STUDIES)
def test_resolves_with_available_data(name, budget, present):
    plan = resolve(STUDIES[name].validated(budget, present))
    assert {task.spec["dataset"]["name"] for task in plan.tasks} <= set(present)
    assert plan.jobs() <= Settings().max_comparison_jobs
    assert plan.tags == {"study": name, "budget": budget}


def test_small_claims_have_six_optimizers_four_trials_and_five_seeds():
    plan = resolve(STUDIES["ko-claims"].validated("small", ["digits", "snips"]))
    assert (len(plan.optimizers), plan.tuning.trials, len(plan.seeds)) == (6, 4, 5)
    assert {task.spec["dataset"]["name"] for task in plan.tasks} == {"digits", "snips"}
    assert {task.spec["model"]["params"]["init_scale"] for task in plan.tasks} == {1.0, 0.1}
    assert all(optimizer.is_tuned and len(optimizer.trials) == 4 for optimizer in plan.optimizers)


def test_full_claims_have_each_form_and_control():
    plan = resolve(STUDIES["ko-claims"].validated("full", list(DATASETS)))
    labels = {optimizer.label for optimizer in plan.optimizers}
    assert {"SGD", "Adam", "AdamW", "Muon", "Lion", "KO soft", "KO bounded", "KO hard", "KO soft on SGD"} <= labels
    assert {"Adam + noise", "Adam + orthogonality"} <= labels
    assert {task.spec["dataset"]["name"] for task in plan.tasks} == set(DATASETS)


def test_ablation_is_grid_of_strength_and_learning_rate_at_two_widths():
    plan = resolve(STUDIES["ko-ablation"].validated("small", ["digits"]))
    assert [len(optimizer.trials) for optimizer in plan.optimizers] == [5, 15, 15, 15]
    assert {tuple(task.spec["model"]["params"]["hidden"]) for task in plan.tasks} == {(32, 32), (256, 256)}


@pytest.mark.parametrize("budget", ["small", "full"])
def test_claims_never_validate_trials_on_test_records(budget):
    plan = resolve(STUDIES["ko-claims"].validated(budget, list(DATASETS)))
    assert plan.tuning is not None
    assert "split" in plan.vary
    drawn = {task.spec["dataset"]["name"]: plan.resplits(number) for number, task in enumerate(plan.tasks)}
    assert drawn["digits"] == "validation"
    assert "all" not in drawn.values()
    assert {"digits (ordinary)", "digits (condensed)"} <= {task.label for task in plan.tasks}


@pytest.mark.parametrize(("study", "drawn"), [("first-look", "nothing"), ("ko-cost", "all")])
def test_resplits_of_golden_and_seeded_digits(study, drawn):
    assert resolve(STUDIES[study].validated("small", ["digits"])).resplits(0) == drawn


def test_small_cost_study_has_three_widths():
    plan = resolve(STUDIES["ko-cost"].validated("small", ["digits"]))
    assert [task.spec["model"]["params"]["hidden"][0] for task in plan.tasks] == [64, 256, 512]
