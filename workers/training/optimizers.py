"""Builders of the catalog's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pytorch_optimizer import Lion
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ko import KO, Fade, MuonAdamW, param_groups
from service.specs.catalog import optimizers as catalog
from workers.training import controls
from workers.training.models import head

Shape = Literal["none", "cosine", "linear"]


def build(choice: catalog.Optimizer, model: nn.Module, seed: int, total_steps: int | None) -> Optimizer:
    """The optimizer of a model's parameters.

    Args:
        seed: seed of the random numbers of noise and collisions.
        total_steps: steps over which collisions fade; None if unknown, in which case the spec refuses `fade`.
    """
    return BUILDERS[choice.name](model, seed, total_steps, **choice.params.model_dump())


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: hidden matrices for Muon; embeddings, the head, norms and biases for AdamW."""
    return _by_use([{"params": list(model.named_parameters())}], model)


def ko_groups(model: nn.Module, base: str, embeddings: bool) -> list[dict[str, Any]]:
    """Parameter groups that mark a model's neurons for KO; with base `muon`, each is split as in `muon_groups`."""
    groups = param_groups(model, embeddings=embeddings)
    return _by_use(groups, model) if base == "muon" else groups


def _by_use(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Each group of (name, tensor) pairs, split into the tensors that Muon trains and those that AdamW trains."""
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    by_adamw = embeddings | {head(model).weight}
    parts = [
        {
            **group,
            "params": [(name, p) for name, p in group["params"] if (p.ndim >= 2 and p not in by_adamw) is use_muon],
            "use_muon": use_muon,
        }
        for use_muon in (True, False)
        for group in groups
    ]
    return [part for part in parts if part["params"]]


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
    model: nn.Module, seed: int, total_steps: int | None, *, base: str, embeddings: bool, fade: Shape, **params: Any
) -> Optimizer:
    if fade != "none":
        assert total_steps is not None, "a spec with fade has a budget of steps or epochs"
        params |= {name: Fade(params[name], steps=total_steps, shape=fade) for name in ("gamma", "rate")}
    groups, builder = ko_groups(model, base, embeddings), BUILDERS[base]
    if isinstance(builder, Plain):
        return KO(groups, base=builder.optimizer, seed=seed, **builder.options, **params)
    return KO(groups, base=base, seed=seed, **params)


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
    "control": _control,
}
