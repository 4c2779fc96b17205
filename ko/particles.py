"""Which rows of a parameter are particles: how a tensor becomes matrices of neurons, and what a model says of its own.

A tensor alone says that its first dimension counts neurons. Modules know better: embeddings hold words, a transposed
convolution has its output channels in dimension 1, an LSTM stacks four matrices in one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from ko.options import FLATTENED
from ko.sharding import is_flattened

EMBEDDING_GROUP_SIZE = 64
"""Rows that meet at a time when embeddings are collided: a vocabulary is far too large for all pairs."""

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, _NormBase)
_GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}

# What a parameter group says of its tensors: see `param_groups`.
Tag = dict[str, Any]
_PLAIN: Tag = {}
_NOT_COLLIDED: Tag = {"collision": "none"}


def param_groups(
    model: nn.Module, *, embeddings: bool = False, stacked: Mapping[str, int] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """The parameters of a model in groups that tell KO where their neurons are: `KO(ko.param_groups(model), ...)`.

    | parameter | collides |
    |---|---|
    | linear layers and convolutions, the head among them | as (out, everything else) |
    | a convolution in g groups | as g layers: their neurons see different inputs |
    | depthwise convolutions | not: a neuron has one channel of its own |
    | transposed convolutions | with their rows in dimension 1 |
    | LSTM and GRU weights, `in_proj_weight` of attention | as 4 or 3 layers, one a gate or projection |
    | embeddings | not, unless `embeddings` is set or the tensor is the head's too (tied) |
    | norms, biases, the lengths of weight norm, whatever has fewer than two dimensions | not |
    | other tensors | as (first dimension, everything else) |

    Args:
        model: any module. Tensors that occur twice are listed once.
        embeddings: collide embeddings as well, softly in random batches of 64 rows, or as hard as the rest; rows
            without a gradient, words that the batch has not, take no part.
        stacked: pattern of parameter names -> how many matrices of equal height are stacked in dimension 0, for models
            that do so in a plain linear layer: `{"*.qkv.weight": 3}` for timm's transformers.
        **options: set in every group, as are `lr` or `gamma`.

    Returns:
        Groups of (name, tensor) pairs, with `collision`, `row_dim`, `blocks`, `group_size` and `skip_idle` (leave rows
        without a gradient out) where they are needed.

    Raises:
        TypeError: no module.
        ValueError: a pattern of `stacked` that fits no parameter, or a height that cannot be divided; a model whose
            parameters the first FSDP has flattened.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, not {type(model).__name__}")
    tags = _tags(model, embeddings)
    named = list(model.named_parameters())
    if any(is_flattened(p) for _, p in named):
        raise ValueError(f"model: {FLATTENED}")
    for pattern, blocks in (stacked or {}).items():
        fitting = [(name, p) for name, p in named if fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(f"stacked: {pattern!r} fits no parameter of the model")
        for name, p in fitting:
            if blocks < 1 or p.shape[0] % blocks:
                raise ValueError(f"stacked: the {p.shape[0]} rows of {name} are not {blocks} matrices of equal height")
            tags[p] = {"blocks": blocks}
    groups: list[dict[str, Any]] = []
    for name, p in named:
        tag = tags.get(p, _PLAIN) if p.ndim >= 2 else _NOT_COLLIDED
        group = next((g for g in groups if g["tag"] == tag), None)
        if group is None:
            group = {"params": [], "tag": tag}
            groups.append(group)
        group["params"].append((name, p))
    return [{"params": group["params"], **options, **group["tag"]} for group in groups]


def matrices(tensor: Tensor, row_dim: int = 0, blocks: int = 1) -> Tensor:
    """A parameter or gradient as (B, N, D): `blocks` layers, each with its neurons as rows.

    Args:
        tensor: at least two dimensions.
        row_dim: the dimension that counts neurons, in each block.
        blocks: how many layers are stacked along dimension 0.
    """
    return _parted(tensor, row_dim, blocks).flatten(2)


def tensor_of(rows: Tensor, like: Tensor, row_dim: int = 0, blocks: int = 1) -> Tensor:
    """What `matrices` made (B, N, D), back in the shape and memory layout of `like`."""
    found = rows.view(_parted(like, row_dim, blocks).shape).movedim(1, row_dim + 1).reshape(like.shape)
    return found if found.stride() == like.stride() else torch.empty_like(like).copy_(found)


def n_rows(tensor: Tensor, row_dim: int, blocks: int) -> int:
    """Neurons in each block."""
    return tensor.shape[row_dim] if row_dim else tensor.shape[0] // blocks


def _parted(tensor: Tensor, row_dim: int, blocks: int) -> Tensor:
    return tensor.reshape(blocks, -1, *tensor.shape[1:]).movedim(row_dim + 1, 1)  # (B, N, ...)


def _tags(model: nn.Module, embeddings: bool) -> dict[Tensor, Tag]:
    """What each parameter is to its module; the head's word counts more than the embedding's it is tied to."""
    tags: dict[Tensor, Tag] = {}
    heads: set[Tensor] = set()
    words = {"group_size": EMBEDDING_GROUP_SIZE, "skip_idle": True} if embeddings else _NOT_COLLIDED
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        gates = next((n for kind, n in _GATES.items() if isinstance(module, kind)), None)
        if isinstance(module, _NORMS):
            tags.update(dict.fromkeys(own.values(), _NOT_COLLIDED))
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            tags[module.in_proj_weight] = {"blocks": 3}
        elif gates is not None:
            stacked = (p for name, p in own.items() if name.startswith(("weight_ih", "weight_hh")))
            tags.update({p: {"blocks": gates} for p in stacked})
        elif isinstance(module, (*_EMBEDDINGS, _ConvNd, nn.Linear)):
            weights = _weights(module)
            if not weights:  # a buffer, or made by some other code
                continue
            *lengths, weight = weights
            tags.update(dict.fromkeys(lengths, _NOT_COLLIDED))
            if isinstance(module, nn.Linear):
                heads.add(weight)
            else:
                tags[weight] = _convolution(module) if isinstance(module, _ConvNd) else words
    return {p: tag for p, tag in tags.items() if p not in heads}


def _weights(module: nn.Module) -> list[Tensor]:
    """The parameters that make up `module.weight`, the one with its neurons last; weight norm has lengths before it."""
    if is_parametrized(module, "weight"):
        return list(module.get_submodule("parametrizations.weight").parameters(recurse=False))
    own = dict(module.named_parameters(recurse=False))
    return [own[name] for name in ("weight", "weight_g", "weight_orig", "weight_v") if name in own]


def _convolution(module: _ConvNd) -> Tag:
    if 1 < module.groups == module.in_channels:
        return _NOT_COLLIDED
    tag: Tag = {"blocks": module.groups} if module.groups > 1 else {}
    return {"row_dim": 1, **tag} if isinstance(module, _ConvTransposeNd) else tag
