"""Hard collisions: random pairs of rows collide elastically, as in direct simulation Monte Carlo.

Source: Bird, "Molecular Gas Dynamics and the Direct Simulation of Gas Flows", 1994, and Nanbu, J. Phys. Soc. Jpn. 49,
1980; the acceptance law is that of arXiv 2505.14777. Shapes: B layers of N rows and D columns,
P = N // 2 pairs in each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko import counter
from ko.collisions.rows import computable, lengths


def hard(weights: Tensor, gradients: Tensor, rate: float | Tensor, key: int | Tensor) -> Tensor:
    """Let random pairs of rows collide elastically; momentum and energy of each pair are conserved.

    Candidate pairs are a random perfect matching (an odd row sits out). A pair collides with probability
    `rate * |g_i - g_j| / M * exp(-|w_i - w_j|)`, clipped to [0, 1], M the largest |g_i - g_j| among the candidates;
    then the relative velocity keeps its length and turns to a uniformly random direction. Pairs with a row that is not
    finite do not collide. With D = 1 nothing happens, since a collision would only swap the two.

    Args:
        weights: (N, D), or (B, N, D) for B layers that do not meet.
        gradients: the same shape.
        rate: scale of the collision probability, >= 0; a float or a 0-d tensor.
        key: decides all random numbers (see `ko.counter.key`); one for each layer, as (B,) int64, if there are several.

    Returns:
        The gradients after the collisions, of their shape and dtype, a new tensor.
    """
    return collide_pairs(weights, gradients, rate, key)[0]


def collide_pairs(weights: Tensor, gradients: Tensor, rate: float | Tensor, key: int | Tensor) -> tuple[Tensor, Tensor]:
    """As `hard`, and the share of each layer's candidate pairs that collided, (B,)."""
    shape = gradients.shape
    w, g = (computable(rows).reshape(-1, *shape[-2:]) for rows in (weights, gradients))  # (B, N, D)
    n_layers, n_rows, columns = g.shape
    if columns < 2 or n_rows < 2:
        return gradients.clone(), g.new_zeros(n_layers)
    w, g = w.reshape(-1, columns), g.reshape(-1, columns)  # (B * N, D)
    keys = counter.as_tensor(key).to(g.device).reshape(-1, 1).expand(n_layers, 1)
    pairs = _candidates(g, keys)
    if torch.compiler.is_compiling():
        # No shape in a compiled graph may depend on the data: every pair is turned, and most are put back.
        hit = pairs.luck < _probability(pairs, w, rate)
        i, j = (torch.where(hit[:, None], new, old) for new, old in zip(*_turned(pairs, g, keys), strict=True))
        share = hit.view(n_layers, -1).to(torch.float32).mean(1)
    else:
        # exp(-distance) is at most 1: most pairs are ruled out by their speed, and need no distance.
        pairs = pairs.chosen(pairs.luck < rate * pairs.speed)
        pairs = pairs.chosen(pairs.luck < _probability(pairs, w, rate))
        (i, j), _ = _turned(pairs, g, keys)
        share = torch.bincount(pairs.number // (n_rows // 2), minlength=n_layers) / (n_rows // 2)
    result = g.index_copy(0, torch.cat((pairs.first, pairs.second)), torch.cat((i, j)))
    return result.view(shape).to(gradients.dtype), share


class _Pairs(NamedTuple):
    """Pairs of rows; each field has one element a pair, and positions count through all layers."""

    number: Tensor  # of the pair: those of layer b are b * P to (b + 1) * P - 1
    first: Tensor  # position of the one row
    second: Tensor  # and of the other
    luck: Tensor  # uniform in [0, 1): the pair collides if it is below the probability
    speed: Tensor  # |g_i - g_j| / M; 0 where it is not finite

    def chosen(self, mask: Tensor) -> _Pairs:
        places = mask.nonzero().squeeze(1)
        return _Pairs(*(field.index_select(0, places) for field in self))


def _candidates(g: Tensor, keys: Tensor) -> _Pairs:
    """A random perfect matching of the rows of each layer; g is (B * N, D), keys (B, 1)."""
    n_layers, device = len(keys), g.device
    n_rows = len(g) // n_layers
    n_pairs = n_rows // 2
    # Counters: a row's place in the matching, then a pair's luck, then (see _directions) its direction.
    bits = counter.bits(keys, torch.arange(n_rows + n_pairs, device=device))  # (B, N + P)
    order = bits[:, :n_rows].argsort(dim=1, stable=True)
    if n_layers > 1:
        order = order + n_rows * torch.arange(n_layers, device=device)[:, None]
    first, second = order[:, :n_pairs].flatten(), order[:, n_pairs : 2 * n_pairs].flatten()
    speeds = lengths(g.index_select(0, second).sub_(g.index_select(0, first))).view(n_layers, n_pairs)
    speeds = torch.where(speeds.isfinite(), speeds, 0)
    fastest = speeds.amax(1, keepdim=True)  # M
    speeds = (speeds / torch.where(fastest > 0, fastest, 1)).flatten()
    luck = counter.uniform(bits[:, n_rows:]).flatten()
    return _Pairs(torch.arange(n_layers * n_pairs, device=device), first, second, luck, speeds)


def _probability(pairs: _Pairs, w: Tensor, rate: float | Tensor) -> Tensor:
    """Probability of each pair to collide, in [0, 1]; 0 if a distance is not finite. w is (B * N, D)."""
    distances = lengths(w.index_select(0, pairs.second).sub_(w.index_select(0, pairs.first))).squeeze(1)
    return (rate * pairs.speed * (-distances).exp()).nan_to_num(0.0).clamp(max=1)


def _turned(pairs: _Pairs, g: Tensor, keys: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two rows of each pair after their collision and before it, (K, D) each."""
    g_i, g_j = g.index_select(0, pairs.first), g.index_select(0, pairs.second)  # g[i] takes three times as long
    mean = (g_i + g_j) / 2
    half = lengths(g_i - g_j) / 2 * _directions(pairs.number, g, keys)
    return (mean + half, mean - half), (g_i, g_j)


def _directions(numbers: Tensor, g: Tensor, keys: Tensor) -> Tensor:
    """Uniform points on the unit sphere, (K, D), each a function of its pair and not of which others collide."""
    columns, n_rows = g.shape[1], len(g) // len(keys)
    n_pairs, n_counters = n_rows // 2, (columns + 1) // 2  # a counter gives two normal numbers
    starts = n_rows + n_pairs + numbers % n_pairs * n_counters  # (K,)
    counters = starts[:, None] + torch.arange(n_counters, device=g.device)
    normals = counter.normal(counter.bits(keys.index_select(0, numbers // n_pairs), counters))[:, :columns].to(g.dtype)
    return normals / lengths(normals)
