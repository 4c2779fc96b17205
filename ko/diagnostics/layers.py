"""Which tensors of a model, an optimizer or a list are layers of neurons, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ko.particles import matrices, n_rows, param_groups
from ko.sharding import gathered

Layers = nn.Module | Optimizer | Iterable[Tensor] | Iterable[dict[str, Any]]
"""Where layers are looked for: a model, an optimizer, or tensors or parameter groups, as `ko.param_groups` has them."""


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
        """Of the same shape; None if there is no gradient, or a sparse one."""
        g = self.parameter.grad
        return None if g is None or g.layout != torch.strided else self._rows(g.detach())

    def _rows(self, tensor: Tensor) -> Tensor:
        rows = matrices(gathered(tensor), self.row_dim, self.blocks)
        return rows[0] if self.blocks == 1 else rows


def layers_of(source: Layers) -> list[Layer]:
    """The layers of `source`: floating-point tensors with at least two dimensions and two rows.

    Of a model, those that `ko.param_groups(model)` would collide, by name. Of an optimizer or of groups, those whose
    group does not say `collision="none"`, unless every group says so; by name where the groups have names. Tensors
    without a name are called by their position among all tensors.
    """
    groups = _groups(source)
    collided = [group.get("collision", "soft") != "none" for group in groups]
    everything = not isinstance(source, nn.Module) and not any(collided)
    found, position = [], 0
    for group, is_collided in zip(groups, collided, strict=True):
        row_dim, blocks = group.get("row_dim", 0), group.get("blocks", 1)
        for name, p in _named(group):
            if (is_collided or everything) and _has_rows(p, row_dim, blocks):
                found.append(Layer(str(position) if name is None else name, p, row_dim, blocks))
            position += 1
    return found


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
    return n_rows(p, row_dim, blocks) >= 2
