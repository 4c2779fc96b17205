"""Optimizers of libraries in specs: names, parameters, errors, KO on them, default search spaces."""

import json

import jsonschema_rs
import pytest
from pydantic import TypeAdapter, ValidationError

from service.comparisons.design.requests import OptimizerRequest
from service.errors import FieldError
from service.specs.catalog.libraries import LIBRARIES, libraries
from service.specs.catalog.optimizers import OPTIMIZERS, declaration, entry_of, optimizer_class
from service.specs.training import TrainSpec
from service.validation import field_errors

BODY = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}}
DECLARED = [declared for library in libraries() for declared in library.optimizers]
OFFERED = [declared for declared in DECLARED if declared.refusal is None]


def errors(optimizer, **fields):
    body = BODY | {"optimizer": optimizer} | fields
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(body)
    return field_errors(caught.value, body)


def test_libraries_offer_more_than_a_hundred_optimizers():
    assert [library.name for library in libraries()] == list(LIBRARIES)
    assert len(OFFERED) > 120
    assert len({declared.name for declared in DECLARED}) == len(DECLARED)


@pytest.mark.parametrize("declared", OFFERED, ids=lambda declared: declared.name)
def test_defaults_are_valid_and_survive_json(declared):
    optimizers = [declared.name]
    optimizers += [{"name": wrapper, "params": {"base": declared.name}} for wrapper in declared.base_of]
    for optimizer in optimizers:
        spec = TrainSpec.model_validate(BODY | {"optimizer": optimizer})
        assert TrainSpec.model_validate(json.loads(spec.model_dump_json())) == spec
        assert TrainSpec.model_validate(spec) == spec
        params = spec.optimizer.params.model_dump(mode="json")
        own = {parameter.name: parameter.default for parameter in declared.parameters}
        assert (
            params.items()
            >= {
                name: value
                for name, value in own.items()
                if name not in ("gamma", "momentum", "betas", "nesterov", "share")
            }.items()
        )


@pytest.mark.parametrize("declared", [one for one in DECLARED if one.refusal], ids=lambda declared: declared.name)
def test_refused_optimizer_is_refused_with_its_reason(declared):
    assert errors(declared.name) == [
        FieldError("/optimizer/name", f"{declared.name} cannot be used: {declared.refusal}")
    ]


@pytest.mark.parametrize(
    ("optimizer", "pointer", "detail"),
    [
        ("pytorch_optimizer/sopa", "/optimizer/name", "unknown optimizer 'pytorch_optimizer/sopa' (did you mean"),
        ({"name": "torch/", "params": {}}, "/optimizer/name", "unknown optimizer 'torch/'"),
        ("nothing/soap", "/optimizer/name", "unknown optimizer 'nothing/soap'"),
        ({"name": "pytorch_optimizer/soap", "params": {"lr": 0}}, "/optimizer/params/lr", "greater than 0"),
        ({"name": "pytorch_optimizer/soap", "params": {"lr": "x"}}, "/optimizer/params/lr", "valid number"),
        (
            {"name": "pytorch_optimizer/soap", "params": {"betas": [0.9]}},
            "/optimizer/params/betas",
            "value 2 is missing",
        ),
        ({"name": "pytorch_optimizer/soap", "params": {"betas": [0.9, 2]}}, "/optimizer/params/betas/1", "less than"),
        ({"name": "pytorch_optimizer/soap", "params": {"rate": 1}}, "/optimizer/params/rate", "unknown field"),
        ({"name": "pytorch_optimizer/soap", "params": 3}, "/optimizer/params", "should be an object"),
        ({"name": "pytorch_optimizer/soap", "more": 3}, "/optimizer/more", "unknown field"),
        (
            {"name": "pytorch_optimizer/soap", "params": {"data_format": "x"}},
            "/optimizer/params/data_format",
            "input should be 'channels_first' or 'channels_last'",
        ),
        ({"name": "ko", "params": {"base": "torch/adamx"}}, "/optimizer/params/base", "unknown optimizer"),
        ({"name": "ko", "params": {"base": "torch/lbfgs"}}, "/optimizer/params/base", "cannot be the base of ko"),
        ({"name": "ko", "params": {"base": "torch/asgd", "lr": -1}}, "/optimizer/params/lr", "greater than 0"),
        ({"name": "ko", "params": {"base": "torch/asgd", "hidden": 1}}, "/optimizer/params/hidden", "unknown field"),
        ({"name": "control", "params": {"base": "torch/asgd"}}, "/optimizer/params/base", "unknown base optimizer"),
    ],
)
def test_error_names_field_and_remedy(optimizer, pointer, detail):
    (error,) = errors(optimizer)
    assert error.pointer == pointer
    assert detail in error.detail


@pytest.mark.parametrize("name", ["torch/lbfgs", "pytorch_optimizer/adahessian"])
def test_scaled_losses_are_refused(name):
    (error,) = errors(name, precision="fp16")
    assert error.pointer == "/precision"
    assert "choose precision bf16 or fp32" in error.detail


def test_budget_without_a_number_of_steps_is_refused():
    (error,) = errors("pytorch_optimizer/ranger21", budget={"seconds": 10})
    assert error == FieldError(
        "/budget", "pytorch_optimizer/ranger21 needs to know its number of steps; give a budget in epochs or steps"
    )


def test_schedule_without_a_learning_rate_is_refused():
    (error,) = errors("pytorch_optimizer/alig", schedule="cosine")
    assert (error.pointer, "no learning rate" in error.detail) == ("/schedule", True)


@pytest.mark.parametrize("wrapper", ["ko", "bimaxwell"])
def test_published_schema_of_wrapper_accepts_parameters_of_any_base(wrapper):
    schema = TypeAdapter(OPTIMIZERS[wrapper]).json_schema()
    params = {"base": "torch/asgd", "lambd": 0.001}
    OPTIMIZERS[wrapper].model_validate({"params": params})
    assert jsonschema_rs.is_valid(schema, {"name": wrapper, "params": params})
    assert not jsonschema_rs.is_valid(schema, {"name": wrapper, "params": {"base": "adam", "lambd": 0.001}})


def test_entry_is_made_once_and_is_no_built_in_one():
    assert entry_of(declaration("torch/asgd")) is optimizer_class("torch/asgd")
    assert "torch/asgd" not in OPTIMIZERS


@pytest.mark.parametrize(
    ("optimizer", "space"),
    [
        ({"name": "adam"}, {"lr": [3e-5, 0.03]}),
        ({"name": "pytorch_optimizer/soap"}, {"lr": [9e-5, 0.09], "weight_decay": [0.0003, 0.3]}),
        ({"name": "ko", "params": {"base": "torch/asgd"}}, {"lr": [0.0003, 0.3]}),
    ],
)
def test_default_space_is_three_decades_around_the_default(optimizer, space):
    request = OptimizerRequest.model_validate(optimizer | {"space": "default"})
    assert {name: list(values.log_uniform) for name, values in request.space.items()} == space


def test_misspelt_default_space_names_both_forms():
    with pytest.raises(ValidationError, match='write "default", or an object'):
        OptimizerRequest.model_validate({"name": "adam", "space": "defaults"})


def test_default_space_needs_a_learning_rate():
    with pytest.raises(ValidationError, match="no learning rate to tune by default"):
        OptimizerRequest.model_validate({"name": "pytorch_optimizer/alig", "space": "default"})


def test_default_space_leaves_fixed_parameters_out():
    with pytest.raises(ValidationError, match="default tunes lr, which has a fixed value"):
        OptimizerRequest.model_validate({"name": "adam", "params": {"lr": 0.1}, "space": "default"})
