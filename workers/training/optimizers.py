"""Optimizers by their catalog names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pytorch_optimizer import Lion
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ko import KO, MuonAdamW
from service import catalog
from workers.training.models import head

Groups = Iterable[dict[str, Any]]

# KO resolves all of these names itself, but Lion.
_KO_BASES: dict[str, type[Optimizer]] = {"lion": Lion}


def build(choice: catalog.Optimizer, model: nn.Module, seed: int) -> Optimizer:
    """The optimizer of a model's parameters; `seed` decides KO's collisions."""
    name, params = choice.name, choice.params.model_dump()  # type: ignore[attr-defined]  # every choice has both
    return BUILDERS[name](model, seed, **params)


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: hidden matrices for Muon; embeddings, the head, norms and biases for AdamW."""
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    apart = embeddings | {head(model).weight}
    hidden = [p for p in model.parameters() if p.ndim >= 2 and p not in apart]
    rest = [p for p in model.parameters() if p.ndim < 2 or p in apart]
    return [{"params": group, "use_muon": is_hidden} for group, is_hidden in ((hidden, True), (rest, False)) if group]


def _plain(optimizer: Callable[..., Optimizer], model: nn.Module, seed: int, **params: Any) -> Optimizer:
    return optimizer(model.parameters(), **params)


def _muon(model: nn.Module, seed: int, **params: Any) -> Optimizer:
    return MuonAdamW(muon_groups(model), **params)


def _ko(model: nn.Module, seed: int, *, base: str, **params: Any) -> Optimizer:
    groups = muon_groups(model) if base == "muon" else model.parameters()
    return KO(groups, base=_KO_BASES.get(base, base), seed=seed, **params)


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
}
