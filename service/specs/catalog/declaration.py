"""Declarations of optimizers that are not written as entries of the catalog: data from which entries are made.

The libraries' optimizers are declared in `library_optimizers.json`, which `make catalog` writes; those that users
upload by their source, which `service.code.source` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from service.specs.base import Frozen, unfit
from service.specs.catalog.base import LearningRate
from service.specs.patterns import DECLARED_NAME

Need = Literal["closure", "create_graph", "modes", "model", "use_muon", "total_steps", "base_class", "base"]
"""What an optimizer needs from the training loop, beyond gradients before each step:

- `closure`: `step(closure)`, to evaluate the model within the step (LBFGS, SAM);
- `create_graph`: gradients that can be differentiated again (AdaHessian);
- `modes`: `train()` before steps and `eval()` before evaluations (schedule-free);
- `model`: the model instead of its parameters;
- `use_muon`: parameter groups that mark the hidden matrices;
- `total_steps`: the number of steps of the budget, for a schedule of its own (Ranger21);
- `base_class`, `base`: another optimizer to wrap, as a class or an instance; `BASE_PARAMETERS` describe it.
"""


class Parameter(BaseModel):
    """A parameter of a declared optimizer: its type, its default and its range."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: Literal["number", "integer", "boolean", "string", "numbers"]
    default: Any = None
    is_optional: bool = False
    """Whether null is allowed."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[str, ...] = ()
    description: str = ""

    @property
    def annotation(self) -> Any:
        """Annotation of the field, with its range."""
        bounds = {name: bound for name in ("ge", "gt", "le", "lt") if (bound := getattr(self, name)) is not None}
        kind: Any = int if self.type == "integer" else float
        number = Annotated[kind, Field(**bounds)]
        match self.type:
            case "boolean":
                kind = bool
            case "string":
                kind = Literal[self.choices] if self.choices else str
            case "numbers":  # JSON has lists only
                kind = Annotated[tuple[(number,) * len(self.default)], Field(strict=False)]  # type: ignore[misc]
            case _:
                kind = LearningRate if self.name == "lr" else number
        return kind | None if self.is_optional else kind

    @property
    def value(self) -> Any:
        """The default as a value of the field."""
        return as_values({self.name: self.default})[self.name]


def as_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from JSON as constructors take them: with tuples instead of lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}


BASE_PARAMETERS = (
    Parameter(
        name="base",
        type="string",
        default="sgd",
        choices=("sgd", "adam", "adamw"),
        description="Optimizer that it wraps",
    ),
    Parameter(name="lr", type="number", default=0.05, description="Learning rate of the base"),
    Parameter(
        name="momentum",
        type="number",
        default=0.9,
        is_optional=True,
        ge=0,
        lt=1,
        description="Momentum of the base sgd; null for others",
    ),
    Parameter(name="weight_decay", type="number", default=0.0, ge=0, le=100, description="Weight decay of the base"),
)
"""Parameters of the base of an optimizer that wraps another one."""


BASE_DEFAULTS: dict[str, dict[str, float | None]] = {
    "sgd": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 1e-3, "momentum": None},
    "adamw": {"lr": 1e-3, "momentum": None},
}
"""Base of an optimizer that wraps another one -> defaults that depend on it."""


class WrapperParams(Frozen):
    """Parameters of an optimizer that wraps another one, beside those in `BASE_PARAMETERS`."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_base(cls, params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        return {**BASE_DEFAULTS.get(str(params.get("base", "sgd")), {}), **params}

    @model_validator(mode="after")
    def _momentum_fits_base(self) -> Self:
        base, momentum = getattr(self, "base", None), getattr(self, "momentum", None)
        if base == "sgd" and momentum is None:
            raise unfit("momentum", "the base sgd needs a momentum, such as 0.9; 0 switches it off")
        if base != "sgd" and momentum is not None:
            raise unfit("momentum", f"only the base sgd has a momentum: omit it for {base}")
        return self


class Declaration(BaseModel):
    """An optimizer, as data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    class_name: str
    title: str
    source: str = ""
    """Paper or page that describes the method."""
    parameters: tuple[Parameter, ...] = ()
    needs: tuple[Need, ...] = ()
    base_of: tuple[Literal["ko", "bimaxwell"], ...] = ()
    """The optimizers that can wrap this one."""
    momentum_off: dict[str, Any] = Field(default_factory=dict)
    """Parameters that switch its own momentum off, for `bimaxwell`."""
    is_resumable: bool = True
    """Whether a run that continues from a checkpoint is bitwise identical to one that was not interrupted; if not, an
    interrupted run starts over."""
    refusal: str | None = None
    """Why it cannot be used; None if it can."""
    space: dict[str, Any] | None = None
    """The search space that it declares; None: the usual one, see `default_space`."""
    remarks: tuple[str, ...] = ()
    """What the conformance test found that does not prevent its use."""

    @property
    def params_model(self) -> type[Frozen]:
        """A new model of its parameters, all of which have defaults."""
        fields: dict[str, Any] = {
            parameter.name: (parameter.annotation, Field(parameter.value, description=parameter.description or None))
            for parameter in self.parameters
        }
        base = WrapperParams if {"base", "base_class"}.intersection(self.needs) else Frozen
        return create_model(
            f"{self.class_name}Params", __base__=base, __module__=__name__, __doc__=self.title, **fields
        )


DeclaredName = Annotated[str, Field(pattern=DECLARED_NAME)]


class DeclaredRequest(Frozen):
    """An optimizer of a library, or an uploaded one; `GET /v1/catalog/optimizers/NAME` describes its parameters."""

    name: DeclaredName
    params: dict[str, Any] = Field(default_factory=dict)


class OnDeclared(Frozen):
    """Parameters of a wrapper on a declared optimizer; the base's own parameters are accepted, too."""

    model_config = ConfigDict(extra="allow")

    base: DeclaredName


SEARCHED = ("lr", "weight_decay")
"""Parameters that a default search space tunes if their default is above 0."""
DECADES = 3
"""Width of the ranges of a default search space."""


def default_space(params: Frozen) -> dict[str, dict[str, list[float]]]:
    """The search space around default parameters: three decades around each of `SEARCHED` that is above 0."""
    factor = 10 ** (DECADES / 2)
    space: dict[str, dict[str, list[float]]] = {}
    for name in SEARCHED:
        default = getattr(params, name, None)
        if isinstance(default, float) and default > 0:
            ends = (default / factor, default * factor)
            space[name] = {"log_uniform": [float(f"{end:.1g}") for end in ends]}
    return space
