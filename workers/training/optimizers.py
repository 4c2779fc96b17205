"""Builders of the catalog's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pytorch_optimizer import Lion
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ko import KO, Fade, MuonAdamW
from service.specs.catalog import optimizers as catalog
from service.specs.catalog.declaration import Declaration
from service.specs.catalog.libraries import is_of_library
from workers.training import controls, libraries, uploaded
from workers.training.bimaxwell import BiMaxwell
from workers.training.groups import ko_groups, muon_groups

Shape = Literal["none", "cosine", "linear"]


def build(choice: catalog.Optimizer, model: nn.Module, seed: int, total_steps: int | None) -> Optimizer:
    """The optimizer of a model's parameters.

    Args:
        seed: seed of the random numbers of noise and collisions.
        total_steps: steps of the run, over which collisions fade; None if unknown, in which case the spec refuses
            `fade` and optimizers that need it.
    """
    params = choice.params.model_dump()
    if catalog.is_declared(choice.name):
        return _declared(choice.name, model, params, total_steps)
    return BUILDERS[choice.name](model, seed, total_steps, **params)


def _factory(declared: Declaration) -> Callable[..., Optimizer]:
    """The class of a declared optimizer, or the function that makes it."""
    return libraries.optimizer_class(declared) if is_of_library(declared.name) else uploaded.factory(declared)


def _declared(name: str, model: nn.Module, params: dict[str, Any], total_steps: int | None = None) -> Optimizer:
    """A declared optimizer of a model's parameters. Raises PydanticCustomError if it is unknown or refused."""
    declared = catalog.declaration(name)
    made = libraries.construct(_factory(declared), declared.needs, model, params, total_steps)
    return uploaded.checked(made, name)


@dataclass(frozen=True)
class Plain:
    """Builder of an optimizer that treats all parameters alike: its class, and fixed options beside the catalog's.

    KO uses the same class with the same options as its base.
    """

    optimizer: type[Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, seed: int, total_steps: int | None, **params: Any) -> Optimizer:
        """See `build`."""
        return self.optimizer(model.parameters(), **self.options, **params)


def _muon(model: nn.Module, seed: int, total_steps: int | None, **params: Any) -> Optimizer:
    return MuonAdamW(muon_groups(model), **params)


def _ko(
    model: nn.Module, seed: int, total_steps: int | None, /, *, base: str, embeddings: bool, fade: Shape, **params: Any
) -> Optimizer:
    if fade != "none":
        assert total_steps is not None, "a spec with fade has a budget of steps or epochs"
        params |= {name: Fade(params[name], steps=total_steps, shape=fade) for name in ("gamma", "rate")}
    if catalog.is_declared(base):
        declared = catalog.declaration(base)
        groups = ko_groups(model, embeddings, for_muon="use_muon" in declared.needs)
        return KO(groups, base=cast(type[Optimizer], _factory(declared)), seed=seed, **params)
    groups, builder = ko_groups(model, embeddings, for_muon=base == "muon"), BUILDERS[base]
    if isinstance(builder, Plain):
        return KO(groups, base=builder.optimizer, seed=seed, **builder.options, **params)
    return KO(groups, base=base, seed=seed, **params)


def _bimaxwell(
    model: nn.Module,
    seed: int,
    total_steps: int | None,
    /,  # a base may have parameters of these names
    *,
    base: str,
    fast: float,
    slow: float,
    share: float,
    mix: float,
    **params: Any,
) -> Optimizer:
    if catalog.is_declared(base):
        return BiMaxwell(_declared(base, model, params), fast, slow, share, mix)
    return BiMaxwell(BUILDERS[base](model, seed, total_steps, **params), fast, slow, share, mix)


def _control(
    model: nn.Module,
    seed: int,
    total_steps: int | None,
    *,
    control: str,
    strength: float | None,
    base: str,
    **params: Any,
) -> Optimizer:
    optimizer = BUILDERS[base](model, seed, total_steps, **params)
    controls.attach(optimizer, model, control, strength or 0.0, seed)
    return optimizer


BUILDERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": Plain(SGD),
    "adam": Plain(Adam),
    "adamw": Plain(AdamW),
    "nadamw": Plain(NAdam, {"decoupled_weight_decay": True}),
    "radam": Plain(RAdam),
    "rmsprop": Plain(RMSprop),
    "adagrad": Plain(Adagrad),
    "muon": _muon,
    "lion": Plain(Lion),
    "ko": _ko,
    "bimaxwell": _bimaxwell,
    "control": _control,
}
