"""Optimizers by their catalog names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
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
    apart = _embeddings(model) | {head(model).weight}
    hidden = [p for p in model.parameters() if p.ndim >= 2 and p not in apart]
    rest = [p for p in model.parameters() if p.ndim < 2 or p in apart]
    return [{"params": group, "use_muon": is_hidden} for group, is_hidden in ((hidden, True), (rest, False)) if group]


def collided_groups(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """The same groups with the embeddings apart and not collided: their rows are words, and 20,000 of them have
    400 million pairs (docs/optimizer.md).
    """
    embeddings = _embeddings(model)
    return [
        {**group, "params": chosen, **options}
        for group in groups
        for chosen, options in (
            ([p for p in group["params"] if p not in embeddings], {}),
            ([p for p in group["params"] if p in embeddings], {"collision": "none"}),
        )
        if chosen
    ]


def _embeddings(model: nn.Module) -> set[torch.Tensor]:
    return {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}


def _plain(optimizer: Callable[..., Optimizer], model: nn.Module, seed: int, **params: Any) -> Optimizer:
    return optimizer(model.parameters(), **params)


def _muon(model: nn.Module, seed: int, **params: Any) -> Optimizer:
    return MuonAdamW(muon_groups(model), **params)


def _ko(model: nn.Module, seed: int, *, base: str, **params: Any) -> Optimizer:
    groups = muon_groups(model) if base == "muon" else [{"params": list(model.parameters())}]
    return KO(collided_groups(groups, model), base=_KO_BASES.get(base, base), seed=seed, **params)


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
