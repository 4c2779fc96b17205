"""All collisions of one step, as data and as one function of tensors, which `torch.compile` makes one graph of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko.collisions.repulsion import soft
from ko.collisions.scattering import collide_pairs


class Encounter(NamedTuple):
    """Layers of one shape that collide in the same way, each by itself."""

    weights: Tensor  # (B, N, D)
    gradients: Tensor  # (B, N, D)
    strength: Tensor  # 0-d: gamma of a soft collision, rate of a hard one
    keys: Tensor | None  # (B,) int64; None where nothing is random
    is_hard: bool
    bounded: bool
    group_size: int | None


def collide(encounters: list[Encounter]) -> tuple[list[Tensor], list[Tensor | None]]:
    """The gradients after the collisions, (B, N, D) each, and of hard ones the share of pairs that collided, (B,)."""
    gradients: list[Tensor] = []
    shares: list[Tensor | None] = []
    for e in encounters:
        w, g = (e.weights[0], e.gradients[0]) if len(e.weights) == 1 else (e.weights, e.gradients)
        if e.is_hard:
            assert e.keys is not None, "hard collisions draw random numbers"
            after, share = collide_pairs(w, g, e.strength, e.keys)
            shares.append(share)
        else:
            key = 0 if e.keys is None else e.keys
            after = soft(w, g, e.strength, e.bounded, group_size=e.group_size, key=key)
            shares.append(None)
        gradients.append(after.view_as(e.gradients))
    return gradients, shares


def stacked(encounters: list[Encounter]) -> Encounter:
    """Several encounters that differ in nothing but their layers, as one."""
    first = encounters[0]
    keys = [e.keys for e in encounters if e.keys is not None]
    return first._replace(
        weights=torch.cat([e.weights for e in encounters]),
        gradients=torch.cat([e.gradients for e in encounters]),
        keys=torch.cat(keys) if keys else None,
    )
