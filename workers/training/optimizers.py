"""Optimizers by their catalog names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pytorch_optimizer import Lion
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ko import KO, Fade, MuonAdamW, param_groups
from service.specs import catalog
from workers.training import controls
from workers.training.models import head

Shape = Literal["none", "cosine", "linear"]

# KO resolves all of these names itself, but Lion.
_KO_BASES: dict[str, type[Optimizer]] = {"lion": Lion}


def build(choice: catalog.Optimizer, model: nn.Module, seed: int, total_steps: int | None) -> Optimizer:
    """The optimizer of a model's parameters; `seed` decides noise and collisions, which may fade over `total_steps`.

    A run whose number of steps is not known (None) has nothing that fades, which its spec sees to.
    """
    name, params = choice.name, choice.params.model_dump()  # type: ignore[attr-defined]  # every choice has both
    return BUILDERS[name](model, seed, total_steps, **params)


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: hidden matrices for Muon; embeddings, the head, norms and biases for AdamW."""
    return _by_use([{"params": list(model.named_parameters())}], model)


def ko_groups(model: nn.Module, base: str, embeddings: bool) -> list[dict[str, Any]]:
    """The groups that tell KO where a model's neurons are; on Muon, each in two as in `muon_groups`."""
    groups = param_groups(model, embeddings=embeddings)
    return _by_use(groups, model) if base == "muon" else groups


def _by_use(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Each group of (name, tensor) pairs in two, by whether Muon or AdamW is to train the tensors."""
    words = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    apart = words | {head(model).weight}
    parts = [
        {
            **group,
            "params": [(name, p) for name, p in group["params"] if (p.ndim >= 2 and p not in apart) is use_muon],
            "use_muon": use_muon,
        }
        for use_muon in (True, False)
        for group in groups
    ]
    return [part for part in parts if part["params"]]


def _plain(
    optimizer: Callable[..., Optimizer], model: nn.Module, seed: int, total_steps: int | None, **params: Any
) -> Optimizer:
    return optimizer(model.parameters(), **params)


def _muon(model: nn.Module, seed: int, total_steps: int | None, **params: Any) -> Optimizer:
    return MuonAdamW(muon_groups(model), **params)


def _ko(
    model: nn.Module, seed: int, total_steps: int | None, *, base: str, embeddings: bool, fade: Shape, **params: Any
) -> Optimizer:
    if fade != "none":
        assert total_steps is not None, "a spec with fade has a budget of steps or epochs"
        params |= {name: Fade(params[name], steps=total_steps, shape=fade) for name in ("gamma", "rate")}
    return KO(ko_groups(model, base, embeddings), base=_KO_BASES.get(base, base), seed=seed, **params)


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
    controls.precede(optimizer, model, control, strength or 0.0, seed)
    return optimizer


BUILDERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(_plain, SGD),
    "adam": partial(_plain, Adam),
    "adamw": partial(_plain, AdamW),
    "nadamw": partial(_plain, partial(NAdam, decoupled_weight_decay=True)),
    "radam": partial(_plain, RAdam),
    "rmsprop": partial(_plain, RMSprop),
    "adagrad": partial(_plain, Adagrad),
    "muon": _muon,
    "lion": partial(_plain, Lion),
    "ko": _ko,
    "control": _control,
}
