"""Collide the gradients of an optimizer's parameters: select the rows, batch layers of one shape, write the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ko import rng
from ko.collisions import LayerBatch, collide, concatenated
from ko.compiling import eager, eager_shallow
from ko.distributed import gathered, is_sharded, sharded_like
from ko.particles import as_matrices, from_matrices, rows_per_block

# On a CPU, layers of up to this many elements cost more in calls than in arithmetic (20 layers of 8 x 8 in one batch
# take a seventh of the time of 20 separate hard collisions); for larger ones the copy does not pay off.
_SMALL_NUMEL = 2**18

# From this many rows on, looking for rows without a gradient pays off; these are words that are absent from the batch.
_SPARSE_FROM_ROWS = 4096

COPIED_BYTES = 256 * 2**20
"""Memory limit for weights and gradients that are stacked or gathered for collisions; a single layer may exceed it."""


class Layer(NamedTuple):
    """A parameter that collides in this step."""

    parameter: Tensor
    group: Mapping[str, Any]
    number: int  # of the parameter group
    position: int  # of the parameter among those of all groups
    strength: Tensor  # 0-d: gamma or rate in this step

    @property
    def is_hard(self) -> bool:
        """Whether its collisions are hard."""
        return bool(self.group["collision"] == "hard")

    @property
    def skips_rows(self) -> bool:
        """Whether rows without a gradient are left out: if the group asks for it, or if that only saves time."""
        p, blocks = self.parameter, self.group["blocks"]
        pays_off = not self.is_hard and rows_per_block(p, self.group["row_dim"], blocks) >= _SPARSE_FROM_ROWS
        return blocks == 1 and bool(self.group["skip_idle"] or pays_off)

    def prepare(self) -> PreparedLayer | None:
        """Gather the rows that collide; None if there are none. A collective call if the parameter is sharded."""
        assert self.parameter.grad is not None
        row_dim, blocks = self.group["row_dim"], self.group["blocks"]
        gradient = gathered(self.parameter.grad)
        w, g = (as_matrices(t, row_dim, blocks) for t in (gathered(self.parameter.detach()), gradient))  # (B, N, D)
        rows = g[0].any(dim=1).nonzero().squeeze(1) if self.skips_rows else None
        if rows is not None:
            if not len(rows):
                return None
            w, g = w.index_select(1, rows), g.index_select(1, rows)
        g = -g if self.group.get("maximize", False) else g
        group_size = self.group["group_size"]
        keys = self._keys() if self.is_hard or group_size is not None else None
        batch = LayerBatch(w, g, self.strength, keys, self.is_hard, self.group["bounded"], group_size)
        return PreparedLayer(self, gradient, rows, batch)

    def _keys(self) -> Tensor:
        """Keys of the random numbers of each block in this step, (B,) int64."""
        parts = self.group["collision_seed"], self.group["collision_step"], self.position
        blocks = self.group["blocks"]
        keys = [rng.key(*parts)] if blocks == 1 else [rng.key(*parts, block) for block in range(blocks)]
        return rng.as_tensor(keys)


class PreparedLayer(NamedTuple):
    """The rows of a layer that collide, and what is needed to write them back."""

    layer: Layer
    gradient: Tensor  # before the collision; the full tensor if the parameter is sharded
    rows: Tensor | None  # positions of the rows that collide; None: all rows
    batch: LayerBatch  # of this layer alone

    def new_gradient(self, collided: Tensor) -> Tensor:
        """The gradient of the parameter, given its rows (B, N, D) after the collision."""
        group, p = self.layer.group, self.layer.parameter
        row_dim, blocks = group["row_dim"], group["blocks"]
        if group.get("maximize", False):
            collided = -collided
        if self.rows is not None:
            collided = as_matrices(self.gradient, row_dim, blocks).index_copy(1, self.rows, collided)
        assert p.grad is not None
        return sharded_like(from_matrices(collided, self.gradient, row_dim, blocks), p.grad)


def layer_of(p: Tensor, group: Mapping[str, Any], number: int, position: int, strength: Tensor | None) -> Layer | None:
    """The parameter as a layer of neurons; None if it does not collide in this step.

    Args:
        p: the parameter.
        group: its parameter group.
        number: position of the group.
        position: position of the parameter among those of all groups.
        strength: gamma or rate in this step; None: no collision.

    Raises:
        RuntimeError: if its gradient is sparse or complex.
    """
    if strength is None or p.ndim < 2 or p.grad is None or not p.numel():
        return None
    if rows_per_block(p, group["row_dim"], group["blocks"]) < 2:
        return None
    if p.grad.layout != torch.strided or p.grad.is_complex():
        kind = "complex" if p.grad.is_complex() else "sparse"
        names = group.get("param_names")
        name = names[next(i for i, q in enumerate(group["params"]) if q is p)] if names else position
        raise RuntimeError(
            f"KO cannot collide the {kind} gradient of parameter {name} (group {number}, shape {tuple(p.shape)}); put "
            'it in a group with collision="none"'
        )
    return Layer(p, group, number, position, strength)


@eager_shallow
def collided(layers: list[Layer]) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
    """Collide the gradients of all layers; `p.grad` is not changed.

    Returns:
        Parameter -> gradient after the collision, and, for hard collisions, parameter -> share of the candidate pairs
        that collided.
    """
    gradients: dict[Tensor, Tensor] = {}
    shares: dict[Tensor, Tensor] = {}
    for chunk in _memory_chunks(layers):
        complete, partial = _prepare(chunk)
        _store(complete, collide([_concatenate(batch) for batch in complete]), gradients, shares)
        if partial:
            _store(partial, _collide_eagerly([_concatenate(batch) for batch in partial]), gradients, shares)
    return gradients, shares


# For layers whose number of colliding rows changes from step to step: each number would be compiled to its own graph.
_collide_eagerly = eager(collide)


@eager
def _memory_chunks(layers: list[Layer]) -> list[list[list[Layer]]]:
    """Batches of layers that collide together, in chunks whose copies fit in `COPIED_BYTES`.

    Layers that are neither stacked nor gathered are not copied, so that most networks need one chunk.
    """
    chunks: list[list[list[Layer]]] = [[]]
    n_bytes = 0
    for batch in _batches(layers):
        p = batch[0].parameter
        copied = 2 * p.numel() * p.element_size() * len(batch) if len(batch) > 1 or is_sharded(p) else 0
        if chunks[-1] and n_bytes + copied > COPIED_BYTES:
            chunks.append([])
            n_bytes = 0
        chunks[-1].append(batch)
        n_bytes += copied
    return chunks


def _batches(layers: list[Layer]) -> Iterator[list[Layer]]:
    """Layers of one group and shape together, if `foreach` is set or, by default, where batching saves time."""
    by_kind: dict[Any, list[Layer]] = {}
    for layer in layers:
        p, foreach = layer.parameter, layer.group.get("foreach")
        assert p.grad is not None
        pays_off = p.is_cuda or p.numel() <= _SMALL_NUMEL
        is_alone = layer.skips_rows or not (pays_off if foreach is None else foreach)
        kind = (layer.number, p.shape, p.dtype, p.grad.dtype, p.device, is_sharded(p))
        by_kind.setdefault(layer.position if is_alone else kind, []).append(layer)
    for batch in by_kind.values():
        p = batch[0].parameter
        size = max(1, COPIED_BYTES // (2 * p.numel() * p.element_size()))
        yield from (batch[start : start + size] for start in range(0, len(batch), size))


@eager
def _prepare(chunk: list[list[Layer]]) -> tuple[list[list[PreparedLayer]], list[list[PreparedLayer]]]:
    """The prepared batches of a chunk: those in which all rows collide, and those in which rows are left out."""
    prepared = [[layer for one in batch if (layer := one.prepare()) is not None] for batch in chunk]
    return [b for b in prepared if b and b[0].rows is None], [b for b in prepared if b and b[0].rows is not None]


@eager
def _concatenate(batch: list[PreparedLayer]) -> LayerBatch:
    """One batch of the layers of several."""
    batches = [prepared.batch for prepared in batch]
    return concatenated(batches) if len(batches) > 1 else batches[0]


@eager
def _store(
    batches: list[list[PreparedLayer]],
    results: tuple[list[Tensor], list[Tensor | None]],
    gradients: dict[Tensor, Tensor],
    shares: dict[Tensor, Tensor],
) -> None:
    """Assign the results of `collide` to the parameters of each batch."""
    for batch, after, share in zip(batches, *results, strict=True):
        for prepared, rows in zip(batch, after.chunk(len(batch)), strict=True):
            gradients[prepared.layer.parameter] = prepared.new_gradient(rows)
        if share is not None:
            means = share.view(len(batch), -1).mean(1)  # over the blocks of each layer
            shares |= {prepared.layer.parameter: mean for prepared, mean in zip(batch, means, strict=True)}
