"""From a parameter with its gradient to what collides, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ko import counter
from ko.collisions import Encounter, collide, stacked
from ko.compiling import eager, eager_outside
from ko.particles import matrices, n_rows, tensor_of
from ko.sharding import gathered, is_sharded, sharded_like

# On a CPU, layers up to this size cost more in calls than in arithmetic (20 layers of 8 x 8 together: a seventh of the
# time of hard collisions one by one); larger ones are not worth the copy.
_SMALL_NUMEL = 2**18

# From so many rows on it pays to look for rows without a gradient, which repel nobody: words that a batch has not.
_SPARSE_FROM_ROWS = 4096

COPIED_BYTES = 256 * 2**20
"""Weights and gradients that are stacked or gathered for collisions: no more of them exist at once, or one layer's."""


class Layer(NamedTuple):
    """One parameter in one step."""

    parameter: Tensor
    group: Mapping[str, Any]
    number: int  # of the group
    position: int  # of the parameter among all
    strength: Tensor  # 0-d: gamma or rate in this step

    @property
    def is_hard(self) -> bool:
        """Whether it collides in pairs."""
        return bool(self.group["collision"] == "hard")

    @property
    def leaves_rows_out(self) -> bool:
        """Whether rows without a gradient are looked for: where the group says so, or where they repel nobody."""
        p, blocks = self.parameter, self.group["blocks"]
        many = not self.is_hard and n_rows(p, self.group["row_dim"], blocks) >= _SPARSE_FROM_ROWS
        return blocks == 1 and bool(self.group["skip_idle"] or many)

    def meet(self) -> Meeting | None:
        """What collides; None if no row does. A collective call if the parameter is sharded."""
        assert self.parameter.grad is not None
        row_dim, blocks = self.group["row_dim"], self.group["blocks"]
        gradient = gathered(self.parameter.grad)
        w, g = (matrices(t, row_dim, blocks) for t in (gathered(self.parameter.detach()), gradient))  # (B, N, D)
        rows = g[0].any(dim=1).nonzero().squeeze(1) if self.leaves_rows_out else None
        if rows is not None:
            if not len(rows):
                return None
            w, g = w.index_select(1, rows), g.index_select(1, rows)
        g = -g if self.group.get("maximize", False) else g
        size = self.group["group_size"]
        keys = self._keys() if self.is_hard or size is not None else None
        return Meeting(
            self, gradient, rows, Encounter(w, g, self.strength, keys, self.is_hard, self.group["bounded"], size)
        )

    def _keys(self) -> Tensor:
        """What decides the random numbers of each block in this step, (B,) int64."""
        parts = self.group["collision_seed"], self.group["collision_step"], self.position
        blocks = self.group["blocks"]
        keys = [counter.key(*parts)] if blocks == 1 else [counter.key(*parts, block) for block in range(blocks)]
        return counter.as_tensor(keys)


class Meeting(NamedTuple):
    """The rows of a layer that collide, and where they belong."""

    layer: Layer
    gradient: Tensor  # as found, whole where the parameter is sharded
    rows: Tensor | None  # positions of the rows that collide; None: all
    encounter: Encounter

    def after(self, collided: Tensor) -> Tensor:
        """The parameter's gradient, given its rows (B, N, D) after the collision."""
        group, p = self.layer.group, self.layer.parameter
        row_dim, blocks = group["row_dim"], group["blocks"]
        if group.get("maximize", False):
            collided = -collided
        if self.rows is not None:
            collided = matrices(self.gradient, row_dim, blocks).index_copy(1, self.rows, collided)
        assert p.grad is not None
        return sharded_like(tensor_of(collided, self.gradient, row_dim, blocks), p.grad)


def layer_of(p: Tensor, group: Mapping[str, Any], number: int, position: int, strength: Tensor | None) -> Layer | None:
    """The parameter as a layer of neurons; None if nothing in it collides in this step.

    Raises:
        RuntimeError: its gradient is sparse or complex.
    """
    if strength is None or p.ndim < 2 or p.grad is None or not p.numel():
        return None
    if n_rows(p, group["row_dim"], group["blocks"]) < 2:
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


@eager_outside
def collided(layers: list[Layer]) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
    """The parameters' gradients after their collisions and, of hard ones, the share of the pairs that collided."""
    gradients: dict[Tensor, Tensor] = {}
    shares: dict[Tensor, Tensor] = {}
    for wave in _waves(layers):
        meetings, changing = _meetings(wave)
        _sort_back(meetings, collide([_together(batch) for batch in meetings]), gradients, shares)
        if changing:
            _sort_back(changing, _collide_eagerly([_together(batch) for batch in changing]), gradients, shares)
    return gradients, shares


# Layers of which another number of rows collides in each step: a graph for each would be compiled.
_collide_eagerly = eager(collide)


@eager
def _waves(layers: list[Layer]) -> list[list[list[Layer]]]:
    """All layers, as many at a time as memory allows, in lists of those that collide together.

    Together are layers of one group and shape, where `foreach` says so or else where it pays. What is neither stacked
    nor gathered takes no memory, so that most networks collide in one wave.
    """
    waves: list[list[list[Layer]]] = [[]]
    held = 0
    for batch in _batches(layers):
        p = batch[0].parameter
        copied = 2 * p.numel() * p.element_size() * len(batch) if len(batch) > 1 or is_sharded(p) else 0
        if waves[-1] and held + copied > COPIED_BYTES:
            waves.append([])
            held = 0
        waves[-1].append(batch)
        held += copied
    return waves


def _batches(layers: list[Layer]) -> Iterator[list[Layer]]:
    alike: dict[Any, list[Layer]] = {}
    for layer in layers:
        p, foreach = layer.parameter, layer.group.get("foreach")
        assert p.grad is not None
        pays = p.is_cuda or p.numel() <= _SMALL_NUMEL
        is_alone = layer.leaves_rows_out or not (pays if foreach is None else foreach)
        kind = (layer.number, p.shape, p.dtype, p.grad.dtype, p.device, is_sharded(p))
        alike.setdefault(layer.position if is_alone else kind, []).append(layer)
    for batch in alike.values():
        p = batch[0].parameter
        height = max(1, COPIED_BYTES // (2 * p.numel() * p.element_size()))
        yield from (batch[start : start + height] for start in range(0, len(batch), height))


@eager
def _meetings(wave: list[list[Layer]]) -> tuple[list[list[Meeting]], list[list[Meeting]]]:
    """What collides in a wave: first where all rows do, then where some are left out."""
    found = [[meeting for layer in batch if (meeting := layer.meet()) is not None] for batch in wave]
    return [b for b in found if b and b[0].rows is None], [b for b in found if b and b[0].rows is not None]


@eager
def _together(batch: list[Meeting]) -> Encounter:
    encounters = [meeting.encounter for meeting in batch]
    return stacked(encounters) if len(encounters) > 1 else encounters[0]


@eager
def _sort_back(
    meetings: list[list[Meeting]],
    outcome: tuple[list[Tensor], list[Tensor | None]],
    gradients: dict[Tensor, Tensor],
    shares: dict[Tensor, Tensor],
) -> None:
    """Give each parameter what came out of its batch's encounter."""
    for batch, after, share in zip(meetings, *outcome, strict=True):
        for meeting, part in zip(batch, after.chunk(len(batch)), strict=True):
            gradients[meeting.layer.parameter] = meeting.after(part)
        if share is not None:
            of_layers = share.view(len(batch), -1).mean(1)  # over the blocks of each
            shares |= {meeting.layer.parameter: of for meeting, of in zip(batch, of_layers, strict=True)}
