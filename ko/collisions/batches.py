"""All collisions of one step as one function of tensors, which `torch.compile` compiles into a single graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko.collisions.hard_collision import collide_pairs
from ko.collisions.soft_collision import soft


class LayerBatch(NamedTuple):
    """B layers of one shape that collide in the same way; rows of different layers do not interact."""

    weights: Tensor  # (B, N, D)
    gradients: Tensor  # (B, N, D)
    strength: Tensor  # 0-d: gamma of a soft collision, rate of a hard one
    keys: Tensor | None  # (B,) int64 keys of the random numbers; None if the collision is deterministic
    is_hard: bool
    bounded: bool
    group_size: int | None


def collide(batches: list[LayerBatch]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Collide every batch.

    Returns:
        For each batch the gradients after the collision, (B, N, D), and the share of its candidate pairs that collided,
        (B,), or None if its collisions are soft.
    """
    gradients: list[Tensor] = []
    shares: list[Tensor | None] = []
    for batch in batches:
        is_single = len(batch.weights) == 1
        w, g = (batch.weights[0], batch.gradients[0]) if is_single else (batch.weights, batch.gradients)
        if batch.is_hard:
            assert batch.keys is not None, "hard collisions draw random numbers"
            after, share = collide_pairs(w, g, batch.strength, batch.keys)
            shares.append(share)
        else:
            key = 0 if batch.keys is None else batch.keys
            after = soft(w, g, batch.strength, batch.bounded, group_size=batch.group_size, key=key)
            shares.append(None)
        gradients.append(after.view_as(batch.gradients))
    return gradients, shares


def concatenated(batches: list[LayerBatch]) -> LayerBatch:
    """Batches that differ only in their layers, as one."""
    first = batches[0]
    keys = [batch.keys for batch in batches if batch.keys is not None]
    return first._replace(
        weights=torch.cat([batch.weights for batch in batches]),
        gradients=torch.cat([batch.gradients for batch in batches]),
        keys=torch.cat(keys) if keys else None,
    )
