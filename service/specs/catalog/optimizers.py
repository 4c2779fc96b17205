"""Optimizers: their parameters and colors, and the base optimizers of KO and the controls.

Their classes: `workers.training.optimizers`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import Field, create_model

from service.specs.base import Frozen, unfit
from service.specs.catalog import libraries, uploaded
from service.specs.catalog.base import DECLARED, Choice, LookedUp, OneOf, key_by
from service.specs.catalog.declaration import Declaration, DeclaredRequest, Need, OnDeclared, as_values
from service.specs.catalog.optimizer_params import (
    AdagradParams,
    AdamParams,
    AdamWParams,
    BiMaxwellOptions,
    Collision,
    ControlOptions,
    LionParams,
    MuonParams,
    NadamWParams,
    RadamParams,
    RmspropParams,
    SgdParams,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {}

COLOURS = 7  # in figures and pages, which define their values; the catalog uses indices from 0
BLUE, ORANGE, GREEN, PINK, OCHRE, SKY, GREY = range(COLOURS)


class Optimizer(Choice):
    """An optimizer."""

    table: ClassVar[dict[str, Any]] = OPTIMIZERS
    colour: ClassVar[int]
    """Index of its color. Optimizers outnumber colors: share one with an optimizer that it is rarely compared with."""
    base_of: ClassVar[tuple[Literal["ko", "bimaxwell", "control"], ...]] = ()
    """The optimizers that can wrap this one: each accepts this one's parameters in addition to its own."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """What it needs from the training loop."""
    resumes: ClassVar[bool] = True
    """Whether a run that continues from a checkpoint is bitwise identical to one that was not interrupted."""
    space: ClassVar[dict[str, Any] | None] = None
    """The search space that it declares; None: the usual one."""
    states: ClassVar[int] = 0
    """Tensors that it keeps at least for each weight, of the weight's size, with its defaults."""

    @classmethod
    def union(cls) -> OneOf:
        """All built-in optimizers, then the declared ones."""
        return OneOf(ChainMap({DECLARED: OfDeclaration}, cls.table), by=key_by(is_declared))

    @property
    def base(self) -> type[Optimizer] | None:
        """The entry of the optimizer that it wraps, if any."""
        name = getattr(self.params, "base", None)
        return None if name is None else optimizer_class(name)

    @property
    def least_states(self) -> int:
        """Tensors of a weight's size that it, or its base, keeps at least."""
        return self.states if self.base is None else self.base.states

    @property
    def is_resumable(self) -> bool:
        """Whether a run with it, and with its base, continues from a checkpoint bit for bit."""
        return self.resumes and (self.base is None or self.base.resumes)

    @property
    def loop_needs(self) -> tuple[Need, ...]:
        """What it, or its base, needs from the training loop."""
        return self.needs if self.base is None else (*self.needs, *self.base.needs)


# --- declared optimizers: of libraries, and uploaded -----------------------------------------------------------------


class DeclaredOptimizer(Optimizer):
    """Base of the entries of declared optimizers, which are made when they are first named."""

    table: ClassVar[dict[str, Any]] = {}


_MAKING_ENTRIES = Lock()  # requests of several threads may name an optimizer for the first time


def is_declared(name: str) -> bool:
    """Whether `name` has the form of that of a declared optimizer."""
    return libraries.is_of_library(name) or uploaded.is_uploaded(name)


def declaration(name: str, field: str = "name") -> Declaration:
    """The declaration of an optimizer.

    Args:
        name: such as `torch/asgd` or `ada/mine`.
        field: the field of the request that has the name, for the error.

    Raises:
        PydanticCustomError: the name is unknown, or the optimizer is refused; the message says why.
    """
    find = libraries.declaration if libraries.is_of_library(name) else uploaded.declaration
    return find(name, field)


def entry_of(declared: Declaration) -> type[Optimizer]:
    """The entry of a declared optimizer, also of a refused one."""
    with _MAKING_ENTRIES:
        entry: type[Optimizer] = DeclaredOptimizer.table.get(declared.name) or _new_entry(declared)
    return entry


def _new_entry(declared: Declaration) -> type[Optimizer]:
    params = declared.params_model
    members = {
        "__module__": __name__,
        "__doc__": declared.title,
        "__annotations__": {"name": Literal[declared.name], "params": params},
        "name": declared.name,
        "params": params(),
        "title": declared.title,
        "colour": GREY,
        "base_of": tuple(wrapper for wrapper in declared.base_of if not uploaded.shared_names(declared, wrapper)),
        "needs": declared.needs,
        "resumes": declared.is_resumable,
        "space": declared.space,
    }
    metaclass: Any = type(DeclaredOptimizer)
    entry = cast(type[Optimizer], metaclass(declared.class_name, (DeclaredOptimizer,), members))
    entry.model_rebuild()
    return entry


def _look_up(value: Any) -> tuple[type[Optimizer], Any]:
    """The entry that a request names, and the request with the name of the version."""
    declared = declaration(value["name"])
    return entry_of(declared), {**value, "name": declared.name}


OfDeclaration = Annotated[Any, LookedUp(_look_up, DeclaredRequest)]


def optimizer_class(name: str) -> type[Optimizer]:
    """The entry of an optimizer. Raises KeyError or PydanticCustomError if there is none."""
    return entry_of(declaration(name)) if is_declared(name) else OPTIMIZERS[name]


# --- built-in optimizers ---------------------------------------------------------------------------------------------


class Sgd(Optimizer):
    """SGD with momentum."""

    title = "SGD with momentum"
    colour = GREEN
    base_of = ("ko", "bimaxwell", "control")
    name: Literal["sgd"] = "sgd"
    params: SgdParams = SgdParams()


class Adam(Optimizer):
    """Adam."""

    title = "Adam (Kingma and Ba 2015)"
    colour = ORANGE
    base_of = ("ko", "bimaxwell", "control")
    states = 2
    name: Literal["adam"] = "adam"
    params: AdamParams = AdamParams()


class AdamW(Optimizer):
    """AdamW."""

    title = "AdamW (Loshchilov and Hutter 2019)"
    colour = OCHRE
    base_of = ("ko", "bimaxwell", "control")
    states = 2
    name: Literal["adamw"] = "adamw"
    params: AdamWParams = AdamWParams()


class NadamW(Optimizer):
    """NAdamW."""

    title = "NAdam (Dozat 2016) with decoupled weight decay"
    colour = OCHRE
    base_of = ("ko", "bimaxwell")
    states = 2
    name: Literal["nadamw"] = "nadamw"
    params: NadamWParams = NadamWParams()


class Radam(Optimizer):
    """RAdam."""

    title = "RAdam (Liu et al. 2020)"
    colour = ORANGE
    base_of = ("ko", "bimaxwell")
    states = 2
    name: Literal["radam"] = "radam"
    params: RadamParams = RadamParams()


class Rmsprop(Optimizer):
    """RMSprop."""

    title = "RMSprop (Hinton 2012)"
    colour = PINK
    base_of = ("ko", "bimaxwell")
    states = 1
    name: Literal["rmsprop"] = "rmsprop"
    params: RmspropParams = RmspropParams()


class Adagrad(Optimizer):
    """Adagrad."""

    title = "Adagrad (Duchi et al. 2011)"
    colour = SKY
    base_of = ("ko", "bimaxwell")
    states = 1
    name: Literal["adagrad"] = "adagrad"
    params: AdagradParams = AdagradParams()


class Muon(Optimizer):
    """Muon, with AdamW for all parameters but the hidden matrices."""

    title = "Muon (Jordan et al. 2024), AdamW for the rest"
    colour = PINK
    base_of = ("ko", "bimaxwell")
    name: Literal["muon"] = "muon"
    params: MuonParams = MuonParams()


class Lion(Optimizer):
    """Lion."""

    title = "Lion (Chen et al. 2023)"
    colour = SKY
    base_of = ("ko", "bimaxwell")
    states = 1
    name: Literal["lion"] = "lion"
    params: LionParams = LionParams()


# --- optimizers that wrap a base optimizer ---------------------------------------------------------------------------

Options = TypeVar("Options", bound=Frozen)


def _on_each_base(wrapper: str, options: type[Options]) -> dict[str, type[Options]]:
    """Name of a base -> parameters of `wrapper` on it: the base's parameters, the options of `wrapper`, and `base`."""
    return {name: _on_base(wrapper, options, entry) for name, entry in OPTIMIZERS.items() if wrapper in entry.base_of}


def _on_base(
    wrapper: str, options: type[Options], entry: type[Optimizer], defaults: Mapping[str, Any] | None = None
) -> type[Options]:
    """Parameters of `wrapper` on a base, with these defaults; of two parameters with one name, that of `wrapper`."""
    params: Any = entry.model_fields["params"].annotation
    name = entry.model_fields["name"]
    about = "Optimizer that takes the step; also one of a library, such as torch/asgd, or an uploaded one."
    fields: dict[str, Any] = {"base": (name.annotation, Field(name.default, description=about))}
    for parameter, default in (defaults or {}).items():
        field = params.model_fields[parameter]
        fields[parameter] = (field.rebuild_annotation(), default)
    return create_model(
        f"{wrapper.capitalize()}{params.__name__}",
        __base__=(options, params),
        __module__=__name__,
        __doc__=f"Parameters of `{wrapper}` with base optimizer `{name.default}`.",
        **fields,
    )


def _on_declared(wrapper: str, options: type[Options]) -> Any:
    """Annotation of the parameters of `wrapper` on any declared optimizer."""
    published = create_model(
        f"{wrapper.capitalize()}DeclaredParams",
        __base__=(options, OnDeclared),  # the configuration of the last one applies
        __module__=__name__,
        __doc__=f"Parameters of `{wrapper}` on an optimizer of a library, or on an uploaded one, whose own parameters "
        "are accepted, too.",
    )

    def look_up(params: Any) -> tuple[type[Options], Any]:
        declared = declaration(params["base"], "base")
        return _params_on_declared(wrapper, options, declared.name), {**params, "base": declared.name}

    return Annotated[Any, LookedUp(look_up, published)]


@cache
def _params_on_declared(wrapper: str, options: type[Options], base: str) -> type[Options]:
    """Parameters of `wrapper` on a declared optimizer. Raises PydanticCustomError if it cannot be a base."""
    declared = declaration(base, "base")
    entry = entry_of(declared)
    uploaded.check_names(declared, wrapper)
    if wrapper not in entry.base_of:
        raise unfit(
            "base",
            f"{base} cannot be the base of {wrapper}; the field base_of in GET /v1/catalog/optimizers/{base} lists the "
            "optimizers that can wrap it",
        )
    return _on_base(wrapper, options, entry, as_values(declared.momentum_off) if wrapper == "bimaxwell" else None)


def _base_of(params: Any) -> Any:
    """The base optimizer named in the parameters; Adam by default."""
    return params.get("base", "adam") if isinstance(params, dict) else getattr(params, "base", None)


def _base_key(params: Any) -> Any:
    """The key in the union of a wrapper's parameters: the name of a built-in base, or `DECLARED`."""
    base = _base_of(params)
    return DECLARED if isinstance(base, str) and is_declared(base) else base


KO_PARAMS = _on_each_base("ko", Collision)
KoOnDeclared = _on_declared("ko", Collision)


class Ko(Optimizer):
    """KO, the kinetics-inspired optimizer, on a base optimizer."""

    title = "KO, kinetics-inspired (arXiv 2505.14777), on a base optimizer"
    colour = BLUE
    name: Literal["ko"] = "ko"
    params: Annotated[Any, OneOf(ChainMap({DECLARED: KoOnDeclared}, KO_PARAMS), by=_base_key)] = KO_PARAMS["adam"]()


_WITHOUT_MOMENTUM: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0},
    "adam": {"betas": (0.0, 0.999)},
    "adamw": {"betas": (0.0, 0.999)},
    "nadamw": {"betas": (0.0, 0.999)},
    "radam": {"betas": (0.0, 0.999)},
    "muon": {"momentum": 0.0, "nesterov": False},
    "lion": {"betas": (0.0, 0.99)},
}
"""Base -> defaults that switch its own momentum off."""

BIMAXWELL_PARAMS = {
    name: _on_base("bimaxwell", BiMaxwellOptions, entry, _WITHOUT_MOMENTUM.get(name))
    for name, entry in OPTIMIZERS.items()
    if "bimaxwell" in entry.base_of
}
BiMaxwellOnDeclared = _on_declared("bimaxwell", BiMaxwellOptions)


class BiMaxwell(Optimizer):
    """Bi-Maxwell momentum on a base optimizer."""

    title = "two-timescale (bi-Maxwell) momentum (modded-nanogpt track 3, 2026), on a base optimizer"
    colour = SKY
    name: Literal["bimaxwell"] = "bimaxwell"
    params: Annotated[Any, OneOf(ChainMap({DECLARED: BiMaxwellOnDeclared}, BIMAXWELL_PARAMS), by=_base_key)] = (
        BIMAXWELL_PARAMS["adam"]()
    )


CONTROL_PARAMS = _on_each_base("control", ControlOptions)


class Control(Optimizer):
    """A control for KO: noise, a penalty or centralized gradients on a base optimizer."""

    title = "control: a simple alternative to KO's collision, on a base optimizer"
    colour = GREY
    name: Literal["control"] = "control"
    params: Annotated[Any, OneOf(CONTROL_PARAMS, by=_base_of)] = CONTROL_PARAMS["adam"]()
