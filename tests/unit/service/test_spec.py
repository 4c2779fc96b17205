import json

import pytest
from pydantic import ValidationError

from service.catalog import DATASETS, MODELS, OPTIMIZERS, SCHEDULES
from service.spec import TRANSITIONS, JobStatus, Reason, Target, TrainSpec

BODY = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
TEXT = BODY | {"dataset": "snips", "model": "textcnn"}


def spec(**fields):
    return TrainSpec.model_validate(BODY | fields)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bare_name_stands_for_its_defaults(name):
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
    ],
    ids=lambda body: "-".join(str(body[field]) for field in ("dataset", "model", "optimizer")),
)
def test_a_resolved_spec_survives_json(body):
    resolved = TrainSpec.model_validate(body)
    assert TrainSpec.model_validate(json.loads(resolved.model_dump_json())) == resolved


def test_kos_base_decides_its_other_parameters():
    params = spec(optimizer={"name": "ko", "params": {"base": "sgd"}}).optimizer.params
    assert (params.momentum, params.collision, params.gamma) == (0.9, "soft", 0.1)
    with pytest.raises(ValidationError, match="betas"):
        spec(optimizer={"name": "ko", "params": {"base": "sgd", "betas": [0.9, 0.99]}})


def test_kos_options_have_defaults_that_change_nothing():
    params = spec(optimizer="ko").optimizer.params
    assert (params.group_size, params.embeddings, params.fade) == (None, False, "none")


@pytest.mark.parametrize("base", ["sgd", "adam", "muon", "lion"])
def test_kos_options_are_those_of_every_base(base):
    options = {"group_size": 2, "embeddings": True, "fade": "cosine"}
    params = spec(optimizer={"name": "ko", "params": {"base": base, **options}}).optimizer.params
    assert params.model_dump().items() >= options.items()


@pytest.mark.parametrize(
    ("option", "value"),
    [("group_size", 1), ("group_size", 2.0), ("embeddings", 1), ("fade", "x"), ("fade", "step"), ("fade", None)],
)
def test_kos_options_have_bounds(option, value):
    with pytest.raises(ValidationError) as caught:
        spec(optimizer={"name": "ko", "params": {option: value}})
    assert [error["loc"][-1] for error in caught.value.errors()] == [option]


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
        ({"stop_at_target": True}, "needs a target"),
        ({"target": {"metric": "test_accuracy", "value": 0.9}}, "val_accuracy"),
    ],
)
def test_what_does_not_fit_together(fields, message):
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_targets_know_which_way_is_better():
    assert Target(metric="val_accuracy", value=0.9).reached_by(0.91)
    assert not Target(metric="val_accuracy", value=0.9).reached_by(0.89)
    assert Target(metric="val_loss", value=0.9).reached_by(0.89)
    assert not Target(metric="val_loss", value=0.9).reached_by(float("nan"))


def test_final_states_are_final():
    assert {status for status in JobStatus if status.is_final} == {
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    }
    assert all(reason.status in TRANSITIONS[JobStatus.RUNNING] for reason in Reason)


@pytest.mark.parametrize(("fields", "needed"), [({"device": "cuda"}, True), ({"precision": "fp16"}, True), ({}, False)])
def test_what_needs_a_gpu(fields, needed):
    assert spec(**fields).needs_cuda is needed
