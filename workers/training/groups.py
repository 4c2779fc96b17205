"""Parameter groups of a model, for Muon and for KO."""

from __future__ import annotations

from typing import Any

from torch import nn

from ko import param_groups
from workers.training.models import head


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: hidden matrices for Muon; embeddings, the head, norms and biases for AdamW."""
    return _by_use([{"params": list(model.named_parameters())}], model)


def ko_groups(model: nn.Module, embeddings: bool, *, for_muon: bool) -> list[dict[str, Any]]:
    """Parameter groups that mark a model's neurons for KO; for bases like Muon, each is split as in `muon_groups`."""
    groups = param_groups(model, embeddings=embeddings)
    return _by_use(groups, model) if for_muon else groups


def _by_use(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Each group of (name, tensor) pairs, split into the tensors that Muon trains and those that AdamW trains."""
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    by_adamw = embeddings | head(model)
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
