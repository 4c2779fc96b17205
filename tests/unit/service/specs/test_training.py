"""Training specs, budgets, summaries and targets: defaults, validation and stored JSON."""

import json

import pytest
from pydantic import ValidationError

from service.errors import FieldError
from service.specs.catalog.datasets import DATASETS, dataset_class, is_own
from service.specs.catalog.models import MODELS
from service.specs.catalog.optimizers import OPTIMIZERS
from service.specs.catalog.schedules import SCHEDULES
from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.specs.summary import Summary, Target
from service.specs.training import Budget, TrainSpec
from service.validation import field_error, field_errors

OWN_NAME = "1 to 48 lower-case letters, digits and _.-, starting with a letter or digit"
BODY = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
TEXT = BODY | {"dataset": "snips", "model": "textcnn"}


def spec(**fields):
    return TrainSpec.model_validate(BODY | fields)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bare_name_has_default_params(name):
    resolved = spec(optimizer=name)
    assert resolved.optimizer == OPTIMIZERS[name]()
    assert resolved == spec(optimizer={"name": name, "params": {}})


@pytest.mark.parametrize(
    "body",
    [
        *[BODY | {"optimizer": name} for name in OPTIMIZERS],
        *[BODY | {"schedule": name} for name in SCHEDULES],
        *[(TEXT if MODELS[name].reads == "text" else BODY) | {"model": name} for name in MODELS],
        *[(TEXT if DATASETS[name].kind == "text" else BODY) | {"dataset": name} for name in DATASETS],
        *[BODY | {"dataset": name} for name in ("images/flowers", "tables/iris_2.1-a")],
        TEXT | {"dataset": "texts/reviews"},
    ],
    ids=lambda body: "-".join(str(body[field]) for field in ("dataset", "model", "optimizer")).replace("/", "_"),
)
def test_resolved_spec_survives_json(body):
    resolved = TrainSpec.model_validate(body)
    assert TrainSpec.model_validate(json.loads(resolved.model_dump_json())) == resolved


@pytest.mark.parametrize(
    ("dataset", "pointer", "detail"),
    [
        ("images/Flowers", "/dataset", f"must be images/ followed by {OWN_NAME}"),
        ("images/../x", "/dataset", f"must be images/ followed by {OWN_NAME}"),
        ("images/x\n", "/dataset", f"must be images/ followed by {OWN_NAME}"),
        ({"name": "images/"}, "/dataset/name", f"must be images/ followed by {OWN_NAME}"),
        ({"name": "images/x", "params": {"augment": True}}, "/dataset/params/augment", "unknown field"),
        ({"name": "images/x", "more": 1}, "/dataset/more", "unknown field"),
        ("pictures/x", "/dataset", "unknown dataset 'pictures/x'"),
        ("tables/x", "/model", "model 'cnn' reads images, but data set 'tables/x' has tables"),
        ("texts/x", "/model", "model 'cnn' reads images, but data set 'texts/x' has texts"),
    ],
)
def test_rejects_invalid_name_of_upload(dataset, pointer, detail):
    body = BODY | {"dataset": dataset, "model": "cnn"}
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(body)
    (error,) = field_errors(caught.value, body)
    assert error.pointer == pointer
    assert error.detail.startswith(detail)


def test_name_determines_kind_of_upload():
    assert is_own("tables/iris")
    assert dataset_class("tables/iris").kind == "table"
    assert not any(map(is_own, ["digits", "tables", "tables/", "tables/a/b", "tables/a\n", "tables/.a", "x/a"]))
    with pytest.raises(KeyError):
        dataset_class("tables/a/b")


def test_base_of_ko_determines_its_parameters():
    params = spec(optimizer={"name": "ko", "params": {"base": "sgd"}}).optimizer.params
    assert (params.momentum, params.collision, params.gamma) == (0.9, "soft", 0.1)
    with pytest.raises(ValidationError, match="betas"):
        spec(optimizer={"name": "ko", "params": {"base": "sgd", "betas": [0.9, 0.99]}})


def test_default_options_of_ko_have_no_effect():
    params = spec(optimizer="ko").optimizer.params
    assert (params.group_size, params.embeddings, params.fade) == (None, False, "none")


@pytest.mark.parametrize("base", ["sgd", "adam", "muon", "lion"])
def test_options_of_ko_are_equal_for_every_base(base):
    options = {"group_size": 2, "embeddings": True, "fade": "cosine"}
    params = spec(optimizer={"name": "ko", "params": {"base": base, **options}}).optimizer.params
    assert params.model_dump().items() >= options.items()


@pytest.mark.parametrize(
    ("option", "value"),
    [("group_size", 1), ("group_size", 2.0), ("embeddings", 1), ("fade", "x"), ("fade", "step"), ("fade", None)],
)
def test_options_of_ko_have_bounds(option, value):
    with pytest.raises(ValidationError) as caught:
        spec(optimizer={"name": "ko", "params": {option: value}})
    assert [error["loc"][-1] for error in caught.value.errors()] == [option]


def control(**params):
    return {"name": "control", "params": params}


@pytest.mark.parametrize(
    ("params", "strength"),
    [({}, 0.1), ({"control": "orthogonality"}, 1e-4), ({"control": "centralization"}, None), ({"strength": 0.0}, 0.0)],
)
def test_default_strength_depends_on_the_control(params, strength):
    assert spec(optimizer=control(**params)).optimizer.params.strength == strength


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"control": "nois"}, "control"),
        ({"strength": -1}, "strength"),
        ({"strength": None}, "strength"),
        ({"control": "orthogonality", "strength": None}, "strength"),
        ({"control": "centralization", "strength": 0.1}, "strength"),
        ({"gamma": 0.1}, "gamma"),
        ({"lr": 0}, "lr"),
    ],
)
def test_error_points_to_invalid_parameter_of_control(base, params, field):
    body = BODY | {"optimizer": control(base=base, **params)}
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(body)
    (error,) = (field_error({**raw, "loc": ("body", *raw["loc"])}, body) for raw in caught.value.errors())
    assert error.pointer == f"/optimizer/params/{field}"


@pytest.mark.parametrize("base", ["muon", "ko", "x"])
def test_controls_have_three_bases(base):
    body = BODY | {"optimizer": control(base=base)}
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(body)
    (raw,) = caught.value.errors()
    error = field_error({**raw, "loc": ("body", *raw["loc"])}, body)
    assert error.pointer == "/optimizer/params/base"
    assert error.detail.endswith("choose one of sgd, adam, adamw")


@pytest.mark.parametrize(
    ("betas", "detail"), [([0.9], "value 2 is missing"), ([0.9] * 3, "must have at most 2 values")]
)
def test_rejects_list_of_wrong_length(betas, detail):
    body = BODY | {"optimizer": {"name": "adam", "params": {"betas": betas}}}
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(body)
    assert field_errors(caught.value, body) == [FieldError("/optimizer/params/betas", detail)]


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, 10**10])
def test_diagnostics_have_bounds(steps):
    with pytest.raises(ValidationError, match="diagnostics_every_steps"):
        spec(diagnostics_every_steps=steps)
    assert spec().diagnostics_every_steps is None
    assert spec(diagnostics_every_steps=1).diagnostics_every_steps == 1


def test_specs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        spec().batch_size = 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"name": "transformer", "params": {"width": 10, "heads": 3}}}, "not a multiple"),
        ({"optimizer": {"name": "sgd", "params": {"momentum": 0, "nesterov": True}}}, "nesterov needs"),
        ({"schedule": {"name": "step", "params": {"milestones": [0.7, 0.5]}}}, "must increase"),
        ({"stop_at_target": True}, "requires a target"),
        ({"target": {"metric": "test_accuracy", "value": 0.9}}, "val_accuracy"),
        ({"budget": {}}, "give exactly one of epochs, steps and seconds"),
        ({"budget": {"epochs": 1, "seconds": 1}}, "give exactly one of epochs, steps and seconds"),
        ({"budget": {"epochs": 1, "steps": 1, "seconds": 1}}, "give exactly one of epochs, steps and seconds"),
    ],
)
def test_rejects_incompatible_fields(fields, message):
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


@pytest.mark.parametrize("seconds", [0, -1, 30 * 86_400 + 1, True, "60"])
def test_budget_in_seconds_has_bounds(seconds):
    with pytest.raises(ValidationError) as caught:
        spec(budget={"seconds": seconds})
    assert [error["loc"] for error in caught.value.errors()] == [("budget", "seconds")]
    for valid in (0.01, 60, 30 * 86_400):
        assert spec(budget={"seconds": valid}).budget.seconds == valid


@pytest.mark.parametrize("base", ["sgd", "adam", "muon", "lion"])
def test_fade_requires_known_number_of_steps(base):
    fading = {"name": "ko", "params": {"base": base, "fade": "linear"}}
    with pytest.raises(ValidationError, match="fade requires a budget in epochs or steps") as caught:
        spec(optimizer=fading, budget={"seconds": 60})
    (error,) = caught.value.errors()
    assert (error["type"], error["ctx"]["field"]) == ("unfit", "optimizer")
    assert spec(optimizer=fading, budget={"steps": 60}).optimizer.params.fade == "linear"
    assert spec(optimizer={"name": "ko", "params": {"base": base}}, budget={"seconds": 60}).budget.seconds == 60


def test_stored_budgets_omit_unset_seconds():
    """Runs stored before budgets had seconds keep the same setting."""
    assert Budget(epochs=30).model_dump() == {"epochs": 30, "steps": None}
    assert Budget(steps=30).model_dump(mode="json") == {"epochs": None, "steps": 30}
    resolved = spec(budget={"seconds": 60})
    assert json.loads(resolved.model_dump_json())["budget"] == {"epochs": None, "steps": None, "seconds": 60}
    assert TrainSpec.model_validate(json.loads(resolved.model_dump_json())) == resolved


STORED = {
    "reason": "completed",
    "steps": 26,
    "epochs": 2.0,
    "train_seconds": 0.03,
    "total_seconds": 0.05,
    "parameters": 2410,
    "metrics": {"test_accuracy": 0.9},
    "best_step": 26,
    "target": None,
    "message": None,
}
"""A summary stored before runs measured their memory."""


def test_reads_summary_without_memory():
    assert Summary.model_validate(STORED).memory is None


def test_memory_survives_json():
    memory = {"optimizer_state_bytes": 8, "parameter_bytes": 4, "peak_bytes": None}
    summary = Summary.model_validate(STORED | {"memory": memory})
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    assert summary.model_dump()["memory"] == memory


def test_target_depends_on_direction_of_metric():
    assert Target(metric="val_accuracy", value=0.9).reached_by(0.91)
    assert not Target(metric="val_accuracy", value=0.9).reached_by(0.89)
    assert Target(metric="val_loss", value=0.9).reached_by(0.89)
    assert not Target(metric="val_loss", value=0.9).reached_by(float("nan"))


def test_final_statuses():
    assert {status for status in JobStatus if status.is_final} == {
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    }
    assert all(reason.status in TRANSITIONS[JobStatus.RUNNING] for reason in Reason)


@pytest.mark.parametrize(("fields", "needed"), [({"device": "cuda"}, True), ({"precision": "fp16"}, True), ({}, False)])
def test_device_and_precision_determine_needs_cuda(fields, needed):
    assert spec(**fields).needs_cuda is needed
