"""The layers of neurons in a model, an optimizer or a list of tensors, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ko.distributed import gathered
from ko.particles import as_matrices, param_groups, rows_per_block

Layers = nn.Module | Optimizer | Iterable[Tensor] | Iterable[dict[str, Any]]
"""A model, an optimizer, tensors, or parameter groups (see `ko.param_groups`)."""


class Layer(NamedTuple):
    """A parameter whose rows are neurons."""

    name: str
    parameter: Tensor
    row_dim: int
    blocks: int

    @property
    def weights(self) -> Tensor:
        """(N, D), or (B, N, D) where the parameter stacks several matrices."""
        return self._rows(self.parameter.detach())

    @property
    def gradients(self) -> Tensor | None:
        """Same shape as `weights`; None without a gradient or with a sparse one."""
        g = self.parameter.grad
        return None if g is None or g.layout != torch.strided else self._rows(g.detach())

    def _rows(self, tensor: Tensor) -> Tensor:
        rows = as_matrices(gathered(tensor), self.row_dim, self.blocks)
        return rows[0] if self.blocks == 1 else rows


def layers_of(source: Layers) -> list[Layer]:
    """The layers of `source`: floating-point tensors with at least two dimensions and two rows.

    For a model, these are the parameters that `ko.param_groups(model)` would collide. For an optimizer or parameter
    groups, they are the parameters of groups without `collision="none"`, or of all groups if every group has it. A
    layer has the name of its parameter, or, without one, the position of the tensor among all tensors.
    """
    groups = _groups(source)
    collided = [group.get("collision", "soft") != "none" for group in groups]
    take_all = not isinstance(source, nn.Module) and not any(collided)
    layers, position = [], 0
    for group, is_collided in zip(groups, collided, strict=True):
        row_dim, blocks = group.get("row_dim", 0), group.get("blocks", 1)
        for name, p in _named(group):
            if (is_collided or take_all) and _has_rows(p, row_dim, blocks):
                layers.append(Layer(str(position) if name is None else name, p, row_dim, blocks))
            position += 1
    return layers


def _groups(source: Layers) -> list[Mapping[str, Any]]:
    if isinstance(source, nn.Module):
        return list(param_groups(source))
    if isinstance(source, Optimizer):
        return list(source.param_groups)
    entries: list[Any] = list(source)
    return entries if entries and isinstance(entries[0], dict) else [{"params": entries}]


def _named(group: Mapping[str, Any]) -> Iterator[tuple[str | None, Tensor]]:
    params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    names = group.get("param_names", [None] * len(params))
    for name, entry in zip(names, params, strict=True):
        yield entry if isinstance(entry, tuple) else (name, entry)


def _has_rows(p: Tensor, row_dim: int, blocks: int) -> bool:
    if p.ndim < 2 or not p.numel() or not p.is_floating_point() or p.layout != torch.strided:
        return False
    return rows_per_block(p, row_dim, blocks) >= 2
