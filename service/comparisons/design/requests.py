"""Requests for comparisons, shared with the SDK and therefore free of numpy."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from service.specs.base import Frozen, unfit
from service.specs.bodies import Label, Name, TagKey
from service.specs.catalog.base import Seed
from service.specs.catalog.declaration import default_space
from service.specs.catalog.optimizers import declaration, is_declared, optimizer_class
from service.specs.metric_text import not_a_result
from service.specs.patterns import PRINTABLE
from service.specs.search_space import MAX_PARAMETERS, Space
from service.specs.text import counted
from service.specs.training import TaskSpec

MAX_SEEDS, MAX_SEEDS_LOOKS, MAX_SEEDS_ANY = 1000, 200, 100
"""Maximum numbers of seeds: with one look at the end, with planned looks, and with a look after each seed.

The second equals `service.stats.spending.MAX_SEEDS_LOOKS`, which the SDK cannot import, because it needs numpy.
"""

COMPARISON_EXAMPLE: JsonDict = {
    "name": "KO against Adam and SGD",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 30}}],
    "optimizers": [
        {"name": "adam", "space": {"lr": {"log_uniform": [0.0003, 0.03]}}},
        {
            "name": "ko",
            "params": {"base": "adam", "collision": "soft"},
            "space": {"lr": {"log_uniform": [0.0003, 0.03]}, "gamma": {"log_uniform": [0.01, 1.0]}},
        },
        {"name": "sgd", "params": {"lr": 0.1}},
    ],
    "tuning": {"trials": 8},
    "seeds": {"max": 20, "looks": [5, 10, 20]},
}

MAX_OPTIMIZERS = 64
"""Optimizers of a comparison."""
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=PRINTABLE)]
"""A single line of text, without surrounding whitespace."""


def _a_result(value: Any) -> Any:
    if isinstance(value, str) and (why := not_a_result(value)):
        raise ValueError(why)
    return value


Endpoint = Annotated[
    Literal["test_accuracy", "test_loss", "best_test_accuracy", "val_accuracy", "val_loss", "samples_per_second"],
    BeforeValidator(_a_result),
]


class TaskRequest(TaskSpec):
    """Data, model and budget on which optimizers are compared."""

    label: Title | None = Field(None, description="Label shown in tables; derived from the configuration if omitted.")


def _not_empty(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError('write "default", or an object such as {"lr": {"log_uniform": [0.0001, 0.1]}}')
    if value == {}:
        raise ValueError(
            'name at least one hyperparameter, such as {"lr": {"log_uniform": [0.0001, 0.1]}}, or omit the space'
        )
    return value


def _default_space(request: dict[str, Any]) -> dict[str, Any] | None:
    """The default search space of the optimizer, without its fixed parameters; None if the optimizer is unknown."""
    given = request.get("params")
    fixed = given if isinstance(given, dict) else {}
    name = str(request.get("name"))
    base = {"base": fixed["base"]} if "base" in fixed else {}
    try:
        choice = optimizer_class(name)
        params = choice.model_validate({"name": choice.model_fields["name"].default, "params": base}).params
    except (KeyError, PydanticCustomError, ValidationError):
        return None  # the optimizer or its base is unknown, which is an error of its own
    space = choice.space or default_space(params)
    if "lr" in fixed and "lr" in space:
        raise unfit("space", "default tunes lr, which has a fixed value: omit that, or give a search space")
    if not {*space} - {*fixed} or (choice.space is None and "lr" not in space):
        raise unfit("space", f"{name} has no learning rate to tune by default: give a search space")
    return {parameter: values for parameter, values in space.items() if parameter not in fixed}


def _or_default(schema: JsonDict) -> None:
    """Publish the word `default` as a further value."""
    variants = schema["anyOf"]
    assert isinstance(variants, list)
    schema["anyOf"] = [*variants, {"const": "default"}]


class OptimizerRequest(Frozen):
    """An optimizer with fixed hyperparameters, a search space, or both."""

    name: str = Field(max_length=64)
    params: dict[str, Any] = Field(
        default_factory=dict, description="Fixed hyperparameters; others have their defaults."
    )
    space: Annotated[Space, BeforeValidator(_not_empty), Field(max_length=MAX_PARAMETERS)] | None = Field(
        None,
        description="Hyperparameters to tune, each given as one of log_uniform, uniform, integer (lowest and highest) "
        "and choice. `default`: the space that an uploaded optimizer declares; otherwise the learning rate, and the "
        "weight decay if its default is above 0, over three decades around their defaults.",
        json_schema_extra=_or_default,
    )
    label: Title | None = Field(None, description="Label shown in tables; derived from the configuration if omitted.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_version_and_space(cls, request: Any) -> Any:
        """The version that is the newest now, and the default search space."""
        name = request.get("name") if isinstance(request, dict) else None
        if isinstance(name, str) and is_declared(name):
            with suppress(PydanticCustomError):  # an unknown one is an error of its own
                request = {**request, "name": declaration(name).name}
        if isinstance(request, dict) and request.get("space") == "default":
            return {**request, "space": _default_space(request)}
        return request


LOOKS = 'give increasing numbers of seeds, such as [5, 10, 20] if max is 20, or "any", or omit looks'


def _looks(value: Any) -> Any:
    is_list = isinstance(value, list | tuple) and 1 <= len(value) <= 20
    if value is None or value == "any" or (is_list and all(type(seeds) is int for seeds in value)):
        return value
    raise ValueError(LOOKS)


class Seeds(Frozen):
    """The number of seeds, and when results are tested."""

    max: int = Field(5, ge=1, le=MAX_SEEDS, description="Maximum number of seeds per optimizer.")
    first: Seed = Field(0, description="First seed; the others follow it.")
    looks: Annotated[
        Annotated[tuple[int, ...], Field(strict=False, min_length=1, max_length=20)] | Literal["any"] | None,
        BeforeValidator(_looks),
    ] = Field(
        None,
        description="Planned looks: numbers of seeds at which results are tested, so that the comparison can end "
        "early. `any`: after each seed; null: once, at the end.",
    )

    @model_validator(mode="after")
    def _looks_lead_to_the_end(self) -> Self:
        looks = self.looks
        if isinstance(looks, tuple) and (list(looks) != sorted(set(looks)) or looks[0] < 2 or looks[-1] != self.max):
            raise unfit(
                "looks", f"looks have to increase from 2 or more to max, which is {self.max}, such as [5, 10, 20] to 20"
            )
        limit = MAX_SEEDS if looks is None else MAX_SEEDS_ANY if looks == "any" else MAX_SEEDS_LOOKS
        if self.max > limit:
            raise unfit("max", f"with {'looks' if looks != 'any' else 'a look after each seed'} it is at most {limit}")
        if self.first + self.max > 2**63:
            raise unfit("first", f"too large: {counted(self.max, 'seed')} from there on must be below 2^63")
        return self


class Tuning(Frozen):
    """How hyperparameters are chosen: by trials with their own seeds, ranked on validation data alone."""

    trials: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Number of trials (distinct points) of each tuned optimizer; omit for a grid.",
    )
    seeds: int = Field(1, ge=1, le=100, description="Runs of each trial; trials are ranked by their mean.")
    first_seed: Seed = Field(1_000_000, description="First seed of the trials; the others follow it.")
    method: Literal["quasi_random", "halving", "grid"] = Field(
        "quasi_random",
        description="`quasi_random`: points of a Halton sequence. `halving`: successive halving, where only the "
        "best trials get the whole budget. `grid`: every combination of the choices.",
    )
    reduction: int = Field(
        3,
        ge=2,
        le=10,
        description="Successive halving: keep 1 in `reduction` trials per rung and multiply the budget by `reduction`.",
    )
    points_seed: Seed = Field(0, description="Seed of the shift of the quasi-random points.")

    @model_validator(mode="after")
    def _seeds_exist(self) -> Self:
        if self.first_seed + self.seeds > 2**63:
            raise unfit("first_seed", f"too large: {counted(self.seeds, 'seed')} from there on must be below 2^63")
        if self.trials is None and self.method != "grid":
            raise unfit(
                "trials", "required: the number of points for each tuned optimizer, such as 8; only a grid needs none"
            )
        return self


def _bare(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _number_of_seeds(value: Any) -> Any:
    if isinstance(value, dict | Seeds):
        return value
    if type(value) is int:
        return {"max": value}
    raise ValueError('give a number of seeds, or an object such as {"max": 20, "looks": [5, 10, 20]}')


class ComparisonRequest(Frozen):
    """A comparison: tasks x optimizers x seeds.

    Optimizers with a search space are tuned first, each with the same number of trials (except with a grid).
    """

    # As for `JobRequest`, the validator of a request body is built on import.
    model_config = ConfigDict(json_schema_extra={"examples": [COMPARISON_EXAMPLE]}, defer_build=False)

    name: Name = "comparison"
    tasks: list[TaskRequest] = Field(min_length=1, max_length=64)
    optimizers: list[Annotated[OptimizerRequest, BeforeValidator(_bare)]] = Field(
        min_length=2, max_length=MAX_OPTIMIZERS
    )
    seeds: Annotated[Seeds, BeforeValidator(_number_of_seeds)] = Seeds()
    tuning: Tuning | None = None
    metric: Endpoint = Field(
        "test_accuracy",
        description="Primary endpoint, measured with the last step's weights; best_*: with the best validation step's. "
        "Training metrics are those of single batches and cannot be compared.",
    )
    vary: list[Literal["seed", "split"]] = Field(
        ["seed"],
        description="`split`: each seed has its own split of the data, so that a verdict holds beyond one split.",
    )
    diverged_score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Score of a diverged run; must not be better than guessing. null: the chance level for an "
        "accuracy; for other metrics no score, and an optimizer with a diverged run cannot be best.",
    )
    reuse: bool = Field(
        True, description="Use existing runs with the same spec, of any user, instead of training them again."
    )
    tags: dict[TagKey, Label] = Field(default_factory=dict, max_length=32)
    priority: int = Field(0, ge=-100, le=100, description="Priority of the jobs; higher runs first.")
    time_limit_seconds: float | None = Field(
        None, gt=0, le=30 * 86_400, description="Time limit of each job over all its attempts."
    )
    max_failures: int = Field(
        3, ge=1, le=100, description="Number of lost workers or training processes after which a job fails."
    )
