"""From a parameter with its gradient to what collides, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ko import counter
from ko.collisions import Encounter
from ko.options import strength
from ko.particles import matrices, tensor_of
from ko.sharding import gathered, sharded_like

# From so many rows on it pays to look for rows without a gradient, which do not repel: words that a batch has not.
_SPARSE_FROM_ROWS = 4096

# On a CPU, layers up to this size cost more in calls than in arithmetic (20 layers of 8 x 8 together: a seventh of the
# time of hard collisions one by one); larger ones are not worth the copy.
_SMALL_NUMEL = 2**18


class Layer(NamedTuple):
    """One parameter in one step."""

    parameter: Tensor
    group: Mapping[str, Any]
    number: int  # of the group
    gradient: Tensor  # as found, whole where the parameter is sharded
    rows: Tensor | None  # positions of the rows that collide; None: all
    encounter: Encounter

    def after(self, collided: Tensor) -> Tensor:
        """The parameter's gradient, given its rows (B, N, D) after the collision."""
        row_dim, blocks = self.group["row_dim"], self.group["blocks"]
        if self.group.get("maximize", False):
            collided = -collided
        if self.rows is not None:
            collided = matrices(self.gradient, row_dim, blocks).index_copy(1, self.rows, collided)
        assert self.parameter.grad is not None
        return sharded_like(tensor_of(collided, self.gradient, row_dim, blocks), self.parameter.grad)


def layer_of(p: Tensor, group: Mapping[str, Any], number: int, index: int) -> Layer | None:
    """The parameter as a layer of neurons; None if nothing in it collides in this step.

    Args:
        p: the parameter.
        group: its group, and `number`, the group's position.
        index: position of the parameter among all.

    Raises:
        RuntimeError: its gradient is sparse or complex.
    """
    row_dim, blocks, collision = group["row_dim"], group["blocks"], group["collision"]
    if collision == "none" or p.ndim < 2 or p.grad is None or not p.numel():
        return None
    if (p.shape[row_dim] if row_dim else len(p) // blocks) < 2:
        return None
    is_hard = collision == "hard"
    force = strength(group, "rate" if is_hard else "gamma", number)
    if not isinstance(force, Tensor):
        if force == 0:
            return None
        force = torch.tensor(force, dtype=torch.float64)
    if p.grad.layout != torch.strided or p.grad.is_complex():
        kind = "complex" if p.grad.is_complex() else "sparse"
        raise RuntimeError(
            f"KO cannot collide the {kind} gradient of parameter {index} (group {number}, shape {tuple(p.shape)}); put "
            'it in a group with collision="none"'
        )
    gradient = gathered(p.grad)
    w, g = (matrices(tensor, row_dim, blocks) for tensor in (gathered(p.detach()), gradient))  # (B, N, D)
    rows = None if is_hard else _rows_with_gradient(g)
    if rows is not None:
        if not len(rows):
            return None
        w, g = w.index_select(1, rows), g.index_select(1, rows)
    keys = _keys(group, index) if is_hard or group["group_size"] is not None else None
    g = -g if group.get("maximize", False) else g
    encounter = Encounter(w, g, force, keys, is_hard, group["bounded"], group["group_size"])
    return Layer(p, group, number, gradient, rows, encounter)


def batches(layers: Iterable[Layer]) -> list[list[Layer]]:
    """Layers that collide together: those of one group and shape, where `foreach` says so, or else where it pays."""
    found: dict[Any, list[Layer]] = {}
    for position, layer in enumerate(layers):
        g, foreach = layer.encounter.gradients, layer.group.get("foreach")
        together = (g.is_cuda or g.numel() <= _SMALL_NUMEL) if foreach is None else foreach
        key = (layer.number, g.shape, g.dtype, layer.encounter.weights.dtype, g.device) if together else position
        found.setdefault(key, []).append(layer)
    return list(found.values())


def _rows_with_gradient(g: Tensor) -> Tensor | None:
    """Positions of the rows of (1, N, D) that are not zero; None for all, or where looking does not pay."""
    if g.shape[0] > 1 or g.shape[1] < _SPARSE_FROM_ROWS:
        return None
    rows = g[0].any(dim=1).nonzero().squeeze(1)
    return rows if len(rows) < g.shape[1] else None


def _keys(group: Mapping[str, Any], index: int) -> Tensor:
    """What decides the random numbers of each block of a parameter in this step, (B,) int64."""
    parts = group["collision_seed"], group["collision_step"], index
    blocks = group["blocks"]
    keys = [counter.key(*parts)] if blocks == 1 else [counter.key(*parts, block) for block in range(blocks)]
    return counter.as_tensor(keys)
