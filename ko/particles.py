"""Which rows of a parameter are particles (neurons): parameter groups for a model, and parameters as matrices of rows.

Without further information, dimension 0 of a tensor counts neurons. Modules define it more precisely: the rows of an
embedding are words, a transposed convolution has its output channels in dimension 1, an LSTM stacks four matrices in
one tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from ko.distributed import is_flattened
from ko.options import FLATTENED

T = TypeVar("T")
EMBEDDING_GROUP_SIZE = 64
"""Rows per random group for embeddings, whose vocabulary is too large for the sum over all pairs."""

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, ParametrizationList)
"""Modules whose first dimension counts neurons; a `ParametrizationList` is handled with its parent module."""
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, _NormBase)
_GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}

# Options of a parameter group that describe the rows of its tensors: see `param_groups`.
RowOptions = dict[str, Any]
_DEFAULT: RowOptions = {}
_NOT_COLLIDED: RowOptions = {"collision": "none"}


def param_groups(
    model: nn.Module,
    *,
    embeddings: bool = False,
    stacked: Mapping[str, int] | None = None,
    rows: Mapping[str, int | None] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Parameter groups of a model that tell KO which rows are neurons: `KO(ko.param_groups(model), ...)`.

    | parameter | collides |
    |---|---|
    | linear layers and convolutions, including the head | as (out, all other dimensions) |
    | convolutions in g groups | as g layers, because the groups have different inputs |
    | depthwise convolutions | no, because each neuron has its own channel |
    | transposed convolutions | with rows in dimension 1 |
    | LSTM and GRU weights, `in_proj_weight` of attention | as 4 or 3 layers, one per gate or projection |
    | embeddings | only if `embeddings` is set, or if tied to the head |
    | norms, biases, magnitudes of weight norm, any tensor with fewer than two dimensions | no |
    | scales of shape (n, 1, 1) and the like | no |
    | a tensor under weight norm, spectral norm, pruning or a parametrization | as without it |
    | `Conv1D` of transformers (GPT-2), which stores (in, out) | with rows in dimension 1 |
    | other tensors | as (first dimension, all other dimensions); a warning names those of three or more dimensions |

    Args:
        model: any module. Shared tensors are listed once.
        embeddings: collide embeddings as well (default False). Soft collisions use random groups of 64 rows. Rows
            without a gradient, that is, words that are absent from the batch, are left out.
        stacked: pattern of parameter names -> number of matrices of equal height that are stacked in dimension 0
            (default None). For models that stack matrices in one linear layer, such as timm's transformers:
            `{"*.qkv.weight": 3}`.
        rows: pattern of parameter names -> the dimension with the neurons, or None for tensors that must not collide
            (default None). It replaces what is known of the module. With `stacked`, it describes the experts of a
            mixture: `{"*.experts.*_proj": 1}` if they are stored as (experts, out, in), 2 if as (experts, in, out).
        **options: options to set in every group, for example `lr` or `gamma`.

    Returns:
        Groups of (name, tensor) pairs, with `collision`, `row_dim`, `blocks`, `group_size` and `skip_idle` (leave out
        rows without a gradient) where they differ from the defaults.

    Raises:
        TypeError: if `model` is not a module, or `stacked` or `rows` no mapping to integers.
        ValueError: if a pattern of `stacked` or `rows` matches no parameter, if the first dimension cannot be divided
            into that number of matrices, if `stacked` is given for a layer that keeps its neurons in another dimension,
            if a parameter lacks the dimension, or if
            FullyShardedDataParallel (FSDP1) has flattened the parameters.

    Warns:
        UserWarning: for tensors of three or more dimensions whose module is unknown.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, not {type(model).__name__}")
    row_options = _row_options(model, embeddings)
    named = list(model.named_parameters())
    if any(is_flattened(p) for _, p in named):
        raise ValueError(f"model: {FLATTENED}")
    described = set()
    for name, p, dim in _matching("rows", rows, named):
        if dim is not None and not 0 <= dim < p.ndim:
            raise ValueError(f"rows: {name} of shape {tuple(p.shape)} has no dimension {dim}")
        row_options[p] = _NOT_COLLIDED if dim is None else {"row_dim": dim} if dim else {}
        described.add(p)
    for name, p, blocks in _matching("stacked", stacked, named):
        own = row_options.get(p, {})
        if own == _NOT_COLLIDED and p in described:
            raise ValueError(f"stacked: rows says that {name} must not collide; leave out one of the two")
        if "row_dim" in own and p not in described:
            raise ValueError(
                f"stacked: {name} is stored with its neurons in dimension {own['row_dim']}, but matrices are split in "
                "dimension 0; leave it out"
            )
        if "row_dim" not in own and 1 < blocks == p.shape[0]:
            raise ValueError(
                f"stacked: each of the {blocks} matrices of {name} {tuple(p.shape)} would have one row; name the "
                "dimension of the neurons with rows"
            )
        if not p.ndim or blocks < 1 or p.shape[0] % blocks:
            raise ValueError(f"stacked: {name} of shape {tuple(p.shape)} cannot be split into {blocks} equal matrices")
        row_options[p] = {**own, "blocks": blocks}
        described.add(p)
    if options.get("collision") != "none":
        _warn_of_unknown(model, described)
    groups: list[dict[str, Any]] = []
    for name, p in named:
        own = row_options.get(p, _DEFAULT) if p.ndim >= 2 else _NOT_COLLIDED
        group = next((g for g in groups if g["row_options"] == own), None)
        if group is None:
            group = {"params": [], "row_options": own}
            groups.append(group)
        group["params"].append((name, p))
    return [{"params": group["params"], **options, **group["row_options"]} for group in groups]


def _matching(
    option: str, patterns: Mapping[str, T] | None, named: Sequence[tuple[str, nn.Parameter]]
) -> Iterator[tuple[str, nn.Parameter, T]]:
    """The parameters that match each pattern, with its value."""
    if not isinstance(patterns or {}, Mapping):
        raise TypeError(f"{option}: expected a mapping from patterns of names to integers, not {patterns!r}")
    for pattern, value in (patterns or {}).items():
        if isinstance(value, bool) or not (isinstance(value, int) or (value is None and option == "rows")):
            raise TypeError(f"{option}: expected an integer for {pattern!r}, not {value!r}")
        matching = [(name, p) for name, p in named if fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(f"{option}: {pattern!r} matches no parameter of the model")
        for name, p in matching:
            yield name, p, value


def _warn_of_unknown(model: nn.Module, described: Collection[Tensor]) -> None:
    """Warn of tensors that may stack matrices, such as the experts of a mixture, or have another dimension first."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    unknown: dict[tuple[type[nn.Module], str, torch.Size], list[str]] = {}
    for module in model.modules():
        if not isinstance(module, (*_LAYERS, *_NORMS)):
            for name, p, _ in _tensors(module):
                if p.ndim >= 3 and 1 < p.shape[0] < p.numel() and p not in described:
                    unknown.setdefault((type(module), name, p.shape), []).append(names[p])
    for (_, _, shape), found in unknown.items():
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        warnings.warn(
            f"{found[0]}{others} of shape {tuple(shape)} is read as {shape[0]} neurons. If it stacks matrices, or its "
            f'neurons are another dimension, pass stacked={{"{found[0]}": NUMBER}} and rows={{"{found[0]}": '
            "DIMENSION}; the dimension None switches its collisions off",
            stacklevel=3,
        )


def as_matrices(tensor: Tensor, row_dim: int = 0, blocks: int = 1) -> Tensor:
    """A parameter or gradient as (B, N, D): B = `blocks` layers with one row per neuron.

    Args:
        tensor: a tensor with at least two dimensions.
        row_dim: the dimension of each block that counts neurons (default 0).
        blocks: number of layers that are stacked along dimension 0 (default 1).
    """
    return _split_blocks(tensor, row_dim, blocks).flatten(2)


def from_matrices(rows: Tensor, like: Tensor, row_dim: int = 0, blocks: int = 1) -> Tensor:
    """Inverse of `as_matrices`: rows (B, N, D) in the shape and memory layout of `like`."""
    tensor = rows.view(_split_blocks(like, row_dim, blocks).shape).movedim(1, row_dim + 1).reshape(like.shape)
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def rows_per_block(tensor: Tensor, row_dim: int, blocks: int) -> int:
    """Number of neurons in each block."""
    return tensor.shape[row_dim] if row_dim else tensor.shape[0] // blocks


def _split_blocks(tensor: Tensor, row_dim: int, blocks: int) -> Tensor:
    return tensor.reshape(blocks, -1, *tensor.shape[1:]).movedim(row_dim + 1, 1)  # (B, N, ...)


def _row_options(model: nn.Module, embeddings: bool) -> dict[Tensor, RowOptions]:
    """Row options of each parameter by its module; a weight that is tied to a linear layer is treated as linear."""
    found: dict[Tensor, RowOptions] = {}
    linear: set[Tensor] = set()
    for module in model.modules():
        for name, direction, magnitudes in _tensors(module):
            found.update(dict.fromkeys(magnitudes, _NOT_COLLIDED))
            if isinstance(module, nn.Linear) and name == "weight":
                linear.add(direction)
            elif (options := _options_of(module, name, embeddings)) is not None:
                found[direction] = options
            elif not isinstance(module, _LAYERS) and direction.ndim and direction.numel() == direction.shape[0]:
                found[direction] = _NOT_COLLIDED
    return {p: options for p, options in found.items() if p not in linear}


def _options_of(module: nn.Module, name: str, embeddings: bool) -> RowOptions | None:
    """Row options of the tensor `name` of a module; None for the defaults."""
    if isinstance(module, _NORMS):
        return _NOT_COLLIDED
    if isinstance(module, nn.MultiheadAttention):
        return {"blocks": 3} if name == "in_proj_weight" else None
    gates = next((n for kind, n in _GATES.items() if isinstance(module, kind)), None)
    if gates is not None:
        return {"blocks": gates} if name.startswith(("weight_ih", "weight_hh")) else None
    if name != "weight":
        return None
    if isinstance(module, _EMBEDDINGS):
        return {"group_size": EMBEDDING_GROUP_SIZE, "skip_idle": True} if embeddings else _NOT_COLLIDED
    if isinstance(module, _ConvNd):
        return _convolution(module)
    return {"row_dim": 1} if _is_transposed_linear(module) else None


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2 in `transformers`, whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, _ConvNd)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """The tensors of a module: name, the parameter with its rows, and those that hold lengths.

    Weight norm, spectral norm and pruning replace a parameter by others, from which they compute it: as attributes with
    an ending (`weight_g` and `weight_v`, `weight_orig`), or in `parametrizations`.
    """
    own = dict(module.named_parameters(recurse=False))
    for name, p in own.items():
        stem, _, ending = name.rpartition("_")
        if ending in ("g", "v") and _is_weight_norm(own.get(f"{stem}_g"), own.get(f"{stem}_v")):
            if ending == "v":
                yield stem, p, [own[f"{stem}_g"]]
        else:
            yield stem if ending == "orig" else name, p, []
    if is_parametrized(module):
        for name, parametrization in module.parametrizations.items():  # type: ignore[operator, union-attr]
            originals = list(parametrization.parameters(recurse=False))
            if originals:
                direction = max(reversed(originals), key=Tensor.numel)  # weight norm: the lengths come first
                yield name, direction, [p for p in originals if p is not direction and _is_lengths(p, direction)]


def _is_weight_norm(lengths: Tensor | None, directions: Tensor | None) -> bool:
    return lengths is not None and directions is not None and _is_lengths(lengths, directions)


def _is_lengths(p: Tensor, directions: Tensor) -> bool:
    """Whether a tensor has one number in all, or one for each index of a dimension of `directions`."""
    fits = p.ndim == directions.ndim and all(n in (1, m) for n, m in zip(p.shape, directions.shape, strict=True))
    return not p.ndim or (fits and sum(n > 1 for n in p.shape) <= 1)


def _convolution(module: _ConvNd) -> RowOptions:
    if 1 < module.groups == module.in_channels:
        return _NOT_COLLIDED
    options: RowOptions = {"blocks": module.groups} if module.groups > 1 else {}
    return {"row_dim": 1, **options} if isinstance(module, _ConvTransposeNd) else options
