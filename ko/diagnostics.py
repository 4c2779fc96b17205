"""What a network's weights say about its neurons: how alike they are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ko.collisions import unit_rows

# Rows of the cosine matrix computed at once: bounds its memory at 1024 * N numbers.
_CHUNK_ROWS = 1024


def weight_correlation(model_or_params: nn.Module | Iterable[Tensor]) -> float:
    """Mean over the layers of the mean over i != j of |cos(w_i, w_j)|, in [0, 1]; NaN if there is no layer.

    See `layer_weight_correlations` for what a layer is. 1 means that all neurons of a layer point one way (they are
    condensed), 0 that they are orthogonal.
    """
    means = list(_correlations(model_or_params).values())
    return float(torch.stack(means).mean()) if means else float("nan")


def layer_weight_correlations(model_or_params: nn.Module | Iterable[Tensor]) -> dict[str, float]:
    """Mean over i != j of |cos(w_i, w_j)| for each layer, by parameter name (by position if tensors are given).

    A layer is a tensor with at least two dimensions and two rows, flattened to (N, D): the head is one, biases are
    not. Embeddings of a given model are not layers: their rows are words, not neurons. Zero rows have cosine 0.
    """
    return {name: float(mean) for name, mean in _correlations(model_or_params).items()}


@torch.no_grad()
def _correlations(model_or_params: nn.Module | Iterable[Tensor]) -> dict[str, Tensor]:
    return {name: _mean_cosine(p.flatten(1)) for name, p in _tensors(model_or_params) if p.ndim >= 2 and len(p) >= 2}


def _tensors(model_or_params: nn.Module | Iterable[Tensor]) -> list[tuple[str, Tensor]]:
    if not isinstance(model_or_params, nn.Module):
        return [(str(position), p) for position, p in enumerate(model_or_params)]
    words = {m.weight for m in model_or_params.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    return [(name, p) for name, p in model_or_params.named_parameters() if p not in words]


def _mean_cosine(rows: Tensor) -> Tensor:
    """Mean |cos| of different rows of an (N, D) matrix, a float32 or float64 scalar."""
    units = unit_rows(rows)
    total = torch.stack([(chunk @ units.mT).abs().sum() for chunk in torch.split(units, _CHUNK_ROWS)]).sum()
    itself = units.square().sum()  # the diagonal
    return (total - itself) / (len(rows) * (len(rows) - 1))
