"""From a request to a plan: cells, trials, labels, limits, and the errors of invalid requests."""

import re

import pytest
from pydantic import ValidationError

from service.comparisons.design.plan import Cell, Plan, scaled
from service.comparisons.design.requests import COMPARISON_EXAMPLE, MAX_SEEDS_LOOKS, ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.errors import Invalid
from service.specs.training import TrainSpec
from service.stats import spending
from service.web.problem_details import field_error

DIGITS = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 30}}
FIXED_TEST = DIGITS | {"dataset": {"name": "digits", "params": {"split": "fixed_test"}}}
ADAM = {"name": "adam", "space": {"lr": {"log_uniform": [0.0003, 0.03]}}}
WARM = {"name": "cosine", "params": {"warmup_steps": 100}}
KO = {"name": "ko", "params": {"collision": "soft"}, "space": {**ADAM["space"], "gamma": {"uniform": [0.0, 1.0]}}}


def make_plan(**fields) -> Plan:
    request = {"tasks": [DIGITS], "optimizers": [ADAM, KO], "tuning": {"trials": 4}} | fields
    return resolve(ComparisonRequest.model_validate({k: v for k, v in request.items() if v is not None}))


def errors_of(**fields) -> dict[str, str]:
    """Pointer -> detail of the errors of an invalid request, from the schema or from `resolve`."""
    request = {"tasks": [DIGITS], "optimizers": [ADAM, KO], "tuning": {"trials": 4}} | fields
    request = {name: value for name, value in request.items() if value is not None}
    try:
        resolve(ComparisonRequest.model_validate(request))
    except Invalid as invalid:
        return {error.pointer: error.detail for error in invalid.errors}
    except ValidationError as invalid:
        errors = [field_error({**error, "loc": ("body", *error["loc"])}, request) for error in invalid.errors()]
        return {error.pointer: error.detail for error in errors}
    raise AssertionError("the request was accepted")


class TestWarnings:
    def warnings(self, *budgets, records=lambda _: 1000, **fields):
        tasks = [DIGITS | {"schedule": WARM, "budget": budget} for budget in budgets]
        request = {"tasks": tasks, "optimizers": [ADAM, "sgd"], "tuning": {"trials": 4}} | fields
        return resolve(ComparisonRequest.model_validate(request), records=records).warnings

    @pytest.mark.parametrize("budget", [{"steps": 40}, {"epochs": 2}])
    def test_run_that_ends_within_its_warmup(self, budget):
        assert self.warnings({"steps": 100}) == self.warnings({"seconds": 1}) == []
        steps = budget.get("steps", 2 * 16)  # 1000 records in batches of 64
        (warning,) = self.warnings(budget)
        assert warning.startswith(f"The warm-up takes 100 steps, but every run ends after {steps}, when the learning")
        assert warning.endswith(f"risen to {steps} % of its value.")

    def test_limit_of_the_data_counts(self):
        task = DIGITS | {"schedule": WARM, "budget": {"epochs": 10}}
        assert self.warnings(tasks=[task]) == []
        (warning,) = self.warnings(tasks=[task | {"dataset": {"name": "digits", "params": {"limit": 64}}}])
        assert "ends after 10," in warning
        assert self.warnings(tasks=[task], records=lambda _: None) == []

    def test_first_rung_of_halving_and_task_are_named(self):
        (warning,) = self.warnings({"steps": 900}, {"steps": 270}, tuning={"trials": 9, "method": "halving"})
        assert "budget.steps=270" in warning or "steps=270" in warning
        assert "a trial of successive halving's first rung ends after 90," in warning


class TestPlan:
    def test_documented_example_resolves(self):
        plan = resolve(ComparisonRequest.model_validate(COMPARISON_EXAMPLE))
        assert [optimizer.label for optimizer in plan.optimizers] == ["adam", "ko soft (adam)", "sgd lr=0.1"]
        assert (plan.looks, plan.stopping, plan.pairs) == ([5, 10, 20], "looks", 3)

    def test_round_trips_through_json(self):
        plan = make_plan(seeds={"max": 20, "looks": [5, 20]}, vary=["split"], tasks=[FIXED_TEST])
        assert Plan.model_validate_json(plan.model_dump_json()) == plan

    def test_optimizers_have_equal_numbers_of_trials_at_equal_learning_rates(self):
        adam, ko = make_plan().optimizers
        assert len(adam.trials) == len(ko.trials) == 4
        assert [trial["lr"] for trial in adam.trials] == [trial["lr"] for trial in ko.trials]
        assert len({trial["gamma"] for trial in ko.trials}) == 4

    def test_counts_its_jobs(self):
        plan = make_plan(tasks=[DIGITS, DIGITS | {"batch_size": 32}], optimizers=[ADAM, KO, "sgd"], seeds=5)
        assert plan.jobs() == 2 * (2 * 4 + 3 * 5)
        assert (
            make_plan(tuning={"trials": 4, "seeds": 3}, seeds={"max": 20, "looks": [5, 20]}).jobs(seeds=5)
            == 2 * 12 + 10
        )

    def test_tuning_uses_neither_test_set_nor_report_seeds(self):
        plan = make_plan()
        assert not plan.spec(Cell("tuning", 0, 0, 0, 0, plan.tuning_seeds[0]))["evaluate_test"]
        assert plan.spec(Cell("report", 0, 0, 0, 0, 0))["evaluate_test"]
        assert not set(plan.tuning_seeds) & set(plan.seeds)

    def test_cell_has_a_resolved_spec(self):
        spec = make_plan().spec(Cell("report", 0, 1, 2, 0, 7))
        assert TrainSpec.model_validate(spec).model_dump(mode="json") == spec
        assert spec["optimizer"]["params"]["collision"] == "soft"
        assert spec["seed"] == 7

    def test_pairs_differ_only_in_the_optimizer(self):
        plan = make_plan()
        first, second = (plan.spec(Cell("report", 0, optimizer, 0, 0, 3)) for optimizer in (0, 1))
        assert {name for name in first if first[name] != second[name]} == {"optimizer"}

    def test_each_seed_has_its_own_split(self):
        plan = make_plan(vary=["seed", "split"], tasks=[FIXED_TEST])
        assert [plan.spec(Cell("report", 0, 0, 0, 0, seed))["dataset"]["params"]["split_seed"] for seed in (0, 4)] == [
            0,
            4,
        ]

    def test_halving_gives_the_whole_budget_to_the_best(self):
        plan = make_plan(tuning={"trials": 9, "method": "halving"})
        assert [(rung.trials, plan.spec(Cell("tuning", 0, 0, 0, number, 10**6))["budget"]["epochs"])
                for number, rung in enumerate(plan.rungs)] == [(9, 10), (3, 30)]  # fmt: skip
        assert plan.jobs() == 2 * 12 + 2 * 5

    def test_grid_has_all_combinations(self):
        lr = {"choice": [0.001, 0.01]}
        grids = [
            {"name": "adam", "space": {"lr": lr}},
            {"name": "ko", "space": {"lr": lr, "gamma": {"choice": [0.1, 1]}}},
        ]
        plan = make_plan(optimizers=grids, tuning={"trials": 1, "method": "grid"})
        assert [len(optimizer.trials) for optimizer in plan.optimizers] == [2, 4]
        assert plan.jobs() == 6 + 10

    def test_diverged_score_of_an_accuracy_defaults_to_chance(self):
        assert make_plan().tasks[0].diverged_score == 0.1
        assert make_plan(metric="test_loss").tasks[0].diverged_score is None
        assert make_plan(metric="test_loss", diverged_score=9.0).tasks[0].diverged_score == 9.0

    def test_labels_distinguish_tasks_and_optimizers(self):
        plan = make_plan(
            tasks=[DIGITS, DIGITS | {"model": {"name": "mlp", "params": {"init_scale": 0.1}}}],
            optimizers=[
                "adam",
                {"name": "ko", "params": {"gamma": 0.2}},
                {"name": "ko", "params": {"gamma": 0.4}},
                "sgd",
            ],
            tuning=None,
        )
        assert [task.label for task in plan.tasks] == ["digits mlp init_scale=1.0", "digits mlp init_scale=0.1"]
        assert [optimizer.label for optimizer in plan.optimizers] == [
            "adam lr=0.001", "ko soft (adam) lr=0.001 gamma=0.2", "ko soft (adam) lr=0.001 gamma=0.4", "sgd lr=0.1",
        ]  # fmt: skip

    def test_largest_seeds(self):
        plan = make_plan(
            tuning={"trials": 4, "seeds": 2, "first_seed": 2**63 - 2}, seeds={"max": 2, "first": 2**63 - 4}
        )
        for phase, seeds in (("tuning", plan.tuning_seeds), ("report", plan.seeds)):
            assert [plan.spec(Cell(phase, 0, 0, 0, 0, seed))["seed"] for seed in seeds] == seeds

    def test_task_that_needs_a_gpu_keeps_auto(self):
        request = ComparisonRequest.model_validate(
            {"tasks": [DIGITS, DIGITS | {"precision": "fp16"}], "optimizers": ["adam", "sgd"]}
        )
        for device, expected in (("cpu", ["cpu", "auto"]), ("cuda", ["cuda", "cuda"])):
            assert [task.spec["device"] for task in resolve(request, {"auto": device}).tasks] == expected

    def test_runs_with_a_time_budget_are_not_reused(self):
        plan = make_plan(tasks=[DIGITS | {"budget": {"seconds": 5}}])
        assert not plan.reuses(0)
        assert make_plan().reuses(0)


RATE = "/optimizers/1/space/rate"
GOLDEN = DIGITS | {"dataset": {"name": "digits", "params": {"split": "golden"}}}
SEED_1 = {"dataset": {"name": "digits", "params": {"split": "golden", "split_seed": 1}}}
SEED_1_OF_FIXED = {"dataset": {"name": "digits", "params": {"split": "fixed_test", "split_seed": 1}}}
FIXED = {"name": "adam", "params": {"lr": 0.001}}
SHORT = DIGITS | {"budget": {"epochs": 1}}


def sgd(**space):
    return {"optimizers": [ADAM, {"name": "sgd", "space": space}]}


@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        ({"optimizers": ["adam"]}, "/optimizers", "at least 2"),
        ({"optimizers": ["adam", "adam"], "tuning": None}, "/optimizers/1", "the same as optimizer 0"),
        ({"optimizers": [ADAM, ADAM]}, "/optimizers/1", "the same as optimizer 0"),
        ({"optimizers": [ADAM, ADAM | {"label": "again"}]}, "/optimizers/1", "the same as optimizer 0"),
        (
            {
                "optimizers": [FIXED, FIXED | {"params": {}, "label": "x", "space": {"lr": {"choice": [0.001]}}}],
                "tuning": {"trials": 1},
            },
            "/optimizers/1",
            "the same as optimizer 0",
        ),
        ({"tasks": [DIGITS, DIGITS | {"label": "again"}]}, "/tasks/1", "the same as task 0"),
        ({"tasks": [DIGITS, DIGITS | {"label": "x", "log_every_steps": 7}]}, "/tasks/1", "the same as task 0"),
        ({"tasks": [DIGITS, DIGITS | {"label": "x", "device": "cpu"}]}, "/tasks/1", "the same as task 0"),
        ({"tasks": [DIGITS, DIGITS | {"target": {"value": 0.9}, "label": "x"}]}, "/tasks/1", "the same as task 0"),
        ({"tuning": {"trials": 4, "seeds": 2, "first_seed": 2**63 - 1}}, "/tuning/first_seed", "too large"),
        ({"seeds": {"max": 2, "first": 2**63 - 1}}, "/seeds/first", "too large"),
        ({"optimizers": [ADAM, KO | {"label": "adam"}]}, "/optimizers/1/label", "is taken"),
        ({"optimizers": [ADAM, {"name": "ko", "space": {}}]}, "/optimizers/1/space", "at least one hyperparameter"),
        (sgd(lr=0.1), "/optimizers/1/space/lr", 'write {"log_uniform": [0.001, 0.1]}'),
        (sgd(lr={"choice": []}), "/optimizers/1/space/lr/choice", "must have at least 1 value"),
        (sgd(rate={"uniform": [0, 1]}), RATE, "unknown"),
        (sgd(lr={"uniform": [0, 1]}), "/optimizers/1/space/lr", "greater than 0"),
        ({"optimizers": [ADAM, {"name": "sgd", "params": {"lr": -1}}]}, "/optimizers/1/params/lr", "greater than 0"),
        ({"optimizers": [ADAM, {"name": "adamm"}]}, "/optimizers/1/name", "did you mean 'adam'"),
        ({"optimizers": [ADAM, KO | {"params": {"gamma": 1.0}}]}, "/optimizers/1/params/gamma", "one of them"),
        ({"tuning": None}, "/tuning", "search space"),
        ({"optimizers": ["adam", "sgd"]}, "/tuning", "no optimizer has a search space"),
        ({"tuning": {"trials": 4, "first_seed": 3}}, "/tuning/first_seed", "choose a first_seed outside their range"),
        ({"tuning": {"trials": 4, "method": "grid"}}, "/optimizers/0/space/lr", "choice"),
        ({"tuning": {"trials": 5, "method": "halving"}}, "/tuning/trials", "at least 6"),
        ({"tuning": {"trials": 6, "method": "halving"}, "tasks": [SHORT]}, "/tasks/0/budget", "too small"),
        ({"tasks": [DIGITS | {"budget": {"epochs": 1, "steps": 5}}]}, "/tasks/0/budget", "exactly one"),
        ({"tasks": [DIGITS | {"model": "lstm"}]}, "/tasks/0/model", "reads texts"),
        ({"tasks": [DIGITS, DIGITS]}, "/tasks/1", "the same as task 0"),
        ({"tasks": []}, "/tasks", "at least 1"),
        ({"tasks": [DIGITS | {"dataset": "mnits"}]}, "/tasks/0/dataset", "did you mean 'mnist'"),
        ({"tasks": [DIGITS | {"target": {"metric": "x", "value": 1}}]}, "/tasks/0/target/metric", "val_accuracy"),
        ({"tasks": [DIGITS | {"target": {"value": 95}}]}, "/tasks/0/target/value", "did you mean 0.95"),
        ({"metric": "grad_norm"}, "/metric", "test_accuracy"),
        ({"seeds": {"max": 10, "looks": [5, 20]}}, "/seeds/looks", "10"),
        ({"seeds": {"max": 10, "looks": [5, 5, 10]}}, "/seeds/looks", "increase"),
        ({"seeds": {"max": 101, "looks": "any"}}, "/seeds/max", "at most 100"),
        ({"seeds": {"max": 201, "looks": [5, 201]}}, "/seeds/max", "at most 200"),
        ({"seeds": 0}, "/seeds", "greater than or equal to 1"),
        ({"seeds": "5"}, "/seeds", "give a number of seeds, or an object such as"),
        ({"seeds": 5.0}, "/seeds", "give a number of seeds"),
        ({"seeds": [0, 1]}, "/seeds", "give a number of seeds"),
        ({"seeds": {"max": 5, "looks": []}}, "/seeds/looks", "give increasing numbers of seeds, such as [5, 10, 20]"),
        ({"seeds": {"max": 5, "looks": "every"}}, "/seeds/looks", 'or "any"'),
        ({"seeds": {"max": 5, "looks": [2.5, 5]}}, "/seeds/looks", "increasing numbers"),
        ({"tuning": {}}, "/tuning/trials", "the number of points for each tuned optimizer"),
        ({"tuning": {"method": "halving"}}, "/tuning/trials", "only a grid needs none"),
        ({"tasks": [DIGITS, DIGITS | {"eval_every_steps": 5, "label": "x"}]}, "/tasks/1", "(/tasks/0)"),
        ({"tasks": [DIGITS, DIGITS | {"diagnostics_every_steps": 5}]}, "/tasks/1", "the same as task 0"),
        ({"tasks": [GOLDEN, GOLDEN | SEED_1]}, "/tasks/1", "the same as task 0"),
        ({"tasks": [FIXED_TEST, FIXED_TEST | SEED_1_OF_FIXED], "vary": ["split"]}, "/tasks/1", "the same as task 0"),
        (sgd(lr={"choice": [0.001, 0.01, 1e-3]}), "/optimizers/1/space/lr/choice", "0.001 is listed more than once"),
        (sgd(lr={"choice": [1, 1.0]}), "/optimizers/1/space/lr/choice", "is listed more than once"),
        (sgd(lr={"choice": [0.001, 0.01]}), "/tuning/trials", "2 different points in the space of optimizer 1"),
        (sgd(lr={"uniform": [0.001, 0.00100000001]}), "/tuning/trials", "request at most 1"),
        (sgd(lr={"choice": [0.1]}, nesterov={"choice": [False]}), "/tuning/trials", "request at most 1"),
        ({"diverged_score": 2.0}, "/diverged_score", "from 0 to 0.1 here"),
        ({"diverged_score": 0.5}, "/diverged_score", "no better than guessing"),
        ({"diverged_score": -0.1}, "/diverged_score", "from 0 to 0.1"),
        ({"diverged_score": 1.7e308}, "/diverged_score", "from 0 to 0.1"),
        ({"diverged_score": -5.0, "metric": "test_loss"}, "/diverged_score", "from 2.3 to 1e+06"),
        ({"diverged_score": 1.7e308, "metric": "test_loss"}, "/diverged_score", "from 2.3 to 1e+06"),
        ({"diverged_score": -1.0, "metric": "samples_per_second"}, "/diverged_score", "samples per second"),
        ({"optimizers": ["adam", {"name": "sgd", "label": " "}], "tuning": None}, "/optimizers/1/label", "at least 1"),
        ({"tasks": [DIGITS | {"label": " \u00a0 "}]}, "/tasks/0/label", "at least 1 character"),
        (
            {"optimizers": [{"name": "adam", "label": "A"}, {"name": "sgd", "label": "A "}], "tuning": None},
            "/optimizers/1/label",
            "'A' is taken by optimizers/0",
        ),
        ({"name": "  "}, "/name", "at least 1 character"),
        ({"vary": ["split"]}, "/tasks/0/dataset/params/split", "fixed_test"),
        ({"vary": ["split"], "tasks": [GOLDEN]}, "/tasks/0/dataset/params/split", "seeded"),
        ({"spaces": 1}, "/spaces", "unknown field"),
    ],
)  # fmt: skip
def test_errors_have_pointers(fields, pointer, message):
    errors = errors_of(**fields)
    assert pointer in errors, errors
    assert message in errors[pointer]


def test_allows_as_many_seeds_with_looks_as_the_spending_function():
    assert MAX_SEEDS_LOOKS == spending.MAX_SEEDS_LOOKS


def test_budgets_are_scaled_in_their_unit():
    assert scaled({"epochs": None, "steps": 10, "seconds": None}, 1 / 3)["steps"] == 3
    assert scaled({"epochs": None, "steps": None, "seconds": 10.0}, 0.25)["seconds"] == 2.5


def test_rejects_large_grid_before_enumerating_it():
    space = {
        name: {"choice": [0.1 * k for k in range(1, 17)]}
        for name in ("lr", "eps", "weight_decay", "a", "b", "c", "d", "e")
    }
    request = {"tasks": [DIGITS], "optimizers": [{"name": "adam", "space": space}, "sgd"]}
    request["tuning"] = {"trials": 1, "method": "grid"}
    with pytest.raises(Invalid, match="are up to 4,294,967,306 jobs, and at most 100 are allowed"):
        resolve(ComparisonRequest.model_validate(request), max_jobs=100)


@pytest.mark.parametrize(
    ("tasks", "seeds", "message"),
    [
        (1, 60, "1 task x (0 runs to tune + 2 optimizers x 60 seeds) are up to 120 jobs"),
        (2, 1, None),
        (60, 1, "60 tasks x (0 runs to tune + 2 optimizers x 1 seed) are up to 120 jobs"),
    ],
)
def test_rejects_too_many_jobs_with_count_and_setting(tasks, seeds, message):
    tasks = [DIGITS | {"batch_size": 16 + k} for k in range(tasks)]
    request = ComparisonRequest.model_validate({"tasks": tasks, "optimizers": ["adam", "sgd"], "seeds": seeds})
    if message is None:
        assert resolve(request, max_jobs=100)
        return
    with pytest.raises(Invalid, match=re.escape(message) + ".*at most 100 are allowed .KOTRAIN_MAX_COMPARISON_JOBS"):
        resolve(request, max_jobs=100)


def test_rejects_too_many_values_of_search_spaces():
    space = {name: {"choice": [0.001 * number for number in range(1, 65)]} for name in ("lr", "gamma", "rate")}
    optimizers = [{"name": "ko", "space": space, "label": str(number)} for number in range(64)]
    with pytest.raises(Invalid, match="the search spaces list 12,288 values, and at most 10,000 are allowed"):
        make_plan(optimizers=optimizers)


def test_points_are_validated_once_for_each_unit_of_budget(monkeypatch):
    validated, validate = [], TrainSpec.model_validate
    monkeypatch.setattr(TrainSpec, "model_validate", lambda body: validated.append(body) or validate(body))
    rates = [0.001 * number for number in range(1, 65)]
    tasks = [DIGITS | {"budget": {unit: number}} for unit in ("steps", "seconds") for number in range(1, 31)]
    make_plan(tasks=tasks, optimizers=[{"name": "adam", "space": {"lr": {"choice": rates}}}, "sgd"])
    assert len(validated) == 2 * 60 + 2 * (4 - 1 + 64)


def test_every_point_has_to_fit_the_budgets_of_all_tasks():
    space = {"fade": {"choice": ["none", "linear"]}}
    tasks = [DIGITS, DIGITS | {"budget": {"epochs": 31}}, DIGITS | {"budget": {"seconds": 60}}]
    errors = errors_of(tasks=tasks, optimizers=[{"name": "ko", "space": space}, "sgd"], tuning={"trials": 1})
    assert list(errors) == ["/optimizers/0"]
    assert "fade requires a budget in epochs or steps" in errors["/optimizers/0"]


def test_rejects_too_many_pairs():
    optimizers = [{"name": "adam", "params": {"lr": 0.001 * (k + 1)}} for k in range(64)]
    tasks = [DIGITS | {"batch_size": 16 + k} for k in range(5)]
    message = re.escape(
        "5 tasks x 2016 pairs of 64 optimizers are 10,080 pairs to be tested together, and at most 10,000"
    )
    with pytest.raises(Invalid, match=message) as caught:
        resolve(ComparisonRequest.model_validate({"tasks": tasks, "optimizers": optimizers, "seeds": 2}))
    assert [error.pointer for error in caught.value.errors] == ["/optimizers"]


class TestRepeatedTask:
    """With a known number of training records, equivalent tasks are rejected."""

    def resolve_tasks(self, *changes, records=lambda name: 1157):
        tasks = [DIGITS | {"budget": {"epochs": 2}} | change for change in changes]
        request = {"tasks": tasks, "optimizers": ["adam", "sgd"]}
        return resolve(ComparisonRequest.model_validate(request), records=records)

    @pytest.mark.parametrize(
        "other",
        [
            {"dataset": {"name": "digits", "params": {"limit": 1157}}},
            {"dataset": {"name": "digits", "params": {"limit": 2000}}},
            {"budget": {"steps": 38}},
            {"budget": {"steps": 38}, "dataset": {"name": "digits", "params": {"limit": 2000}}, "eval_every_steps": 7},
        ],
    )
    def test_rejects_limit_without_effect_and_epochs_as_steps(self, other):
        with pytest.raises(Invalid, match="trains the same as task 0"):
            self.resolve_tasks({}, other)
        assert len(self.resolve_tasks({}, other, records=lambda name: None).tasks) == 2

    @pytest.mark.parametrize(
        "other",
        [
            {"dataset": {"name": "digits", "params": {"limit": 1156}}},
            {"budget": {"steps": 37}},
            {"budget": {"steps": 38}, "batch_size": 32},
            {"dataset": {"name": "digits", "params": {"split_seed": 1}}},
        ],
    )
    def test_accepts_different_training(self, other):
        assert len(self.resolve_tasks({}, other).tasks) == 2

    def test_records_are_counted_only_for_repeated_data_sets(self):
        snips = {"dataset": "snips", "model": "textcnn"}
        assert len(self.resolve_tasks({}, snips, records=None).tasks) == 2


def test_trials_are_distinct_points():
    space = {"lr": {"choice": [0.1, 0.2, 0.3]}, "nesterov": {"choice": [False, True]}, "momentum": {"choice": [0.9]}}
    plan = make_plan(optimizers=[{"name": "sgd", "space": space}, "adam"], tuning={"trials": 6})
    trials = plan.optimizers[0].trials
    assert len({(trial["lr"], trial["nesterov"]) for trial in trials}) == len(trials) == 6


def test_grid_needs_no_number_of_trials():
    grid = [{"name": "adam", "space": {"lr": {"choice": [0.001, 0.01]}}}, "sgd"]
    for tuning in ({"method": "grid"}, {"method": "grid", "trials": 7}):
        plan = make_plan(optimizers=grid, tuning=tuning)
        assert (len(plan.optimizers[0].trials), plan.tuning.trials) == (2, None)


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        ({"diverged_score": 0.0}, 0.0),
        ({"diverged_score": 0.1}, 0.1),
        ({"diverged_score": 2.3, "metric": "test_loss"}, 2.3),
        ({"diverged_score": 1e6, "metric": "test_loss"}, 1e6),
        ({"diverged_score": 0.0, "metric": "samples_per_second"}, 0.0),
    ],
)
def test_diverged_score_can_equal_guessing(fields, score):
    assert make_plan(**fields).tasks[0].diverged_score == score


def test_labels_are_stripped():
    plan = make_plan(optimizers=[{"name": "adam", "label": " A\t"}, "sgd"], tuning=None, name=" x ")
    assert (plan.optimizers[0].label, plan.name) == ("A", "x")


@pytest.mark.parametrize("tuning", [{"trials": 4, "seeds": 2}, {"trials": 9, "method": "halving"}])
def test_job_limit_counts_the_planned_jobs(tuning):
    request = {"tasks": [DIGITS], "optimizers": [ADAM, KO, "sgd"], "tuning": tuning}
    validated = ComparisonRequest.model_validate(request)
    jobs = resolve(validated).jobs()
    assert resolve(validated, max_jobs=jobs).jobs() == jobs
    with pytest.raises(Invalid, match=f"up to {jobs} jobs"):
        resolve(validated, max_jobs=jobs - 1)


def test_fixed_split_is_not_varied():
    plan = make_plan(tasks=[{"dataset": "snips", "model": "textcnn", "budget": {"epochs": 1}}], vary=["split"])
    assert plan.spec(Cell("report", 0, 0, 0, 0, 4))["dataset"]["params"]["split_seed"] == 0
