"""Hard collisions: random pairs of rows collide elastically, as in direct simulation Monte Carlo (DSMC).

Sources: Bird, "Molecular Gas Dynamics and the Direct Simulation of Gas Flows", 1994; Nanbu, J. Phys. Soc. Jpn. 49,
1980; the collision probability is that of arXiv 2505.14777. Shapes: B layers of N rows and D columns, P = N // 2
candidate pairs per layer, K pairs under consideration over all layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko import rng
from ko.collisions.rows import computable, lengths
from ko.compiling import has_values


def hard(weights: Tensor, gradients: Tensor, rate: float | Tensor, key: int | Tensor) -> Tensor:
    r"""Hard collision: random pairs of rows collide elastically; each pair conserves its momentum and energy.

    The candidate pairs are a random perfect matching of the rows; if N is odd, one row is left out. A pair collides
    with probability :math:`\mathrm{rate} \cdot |g_i - g_j| / M \cdot \exp(-|w_i - w_j|)`, clipped to [0, 1], where M
    is the largest :math:`|g_i - g_j|` among the candidate pairs. Then, with n uniform on the unit sphere,

    .. math::
        g_i' = (g_i + g_j) / 2 + |g_i - g_j| / 2 \cdot n, \quad g_j' = (g_i + g_j) / 2 - |g_i - g_j| / 2 \cdot n

    Pairs with a row that is not finite do not collide. Layers with D = 1 are returned unchanged, because a collision
    could only swap the two velocities.

    Args:
        weights: (N, D), or (B, N, D) for B layers that do not interact.
        gradients: same shape as `weights`.
        rate: scale of the collision probability, >= 0; a float or a 0-d tensor.
        key: key of all random numbers (see `ko.rng.key`); for B layers, B keys as (B,) int64.

    Returns:
        The gradients after the collisions: a new tensor with the shape and dtype of `gradients`.
    """
    return collide_pairs(weights, gradients, rate, key)[0]


def collide_pairs(weights: Tensor, gradients: Tensor, rate: float | Tensor, key: int | Tensor) -> tuple[Tensor, Tensor]:
    """`hard`, and the share of candidate pairs that collided in each layer, (B,)."""
    shape = gradients.shape
    w, g = (computable(rows).reshape(-1, *shape[-2:]) for rows in (weights, gradients))  # (B, N, D)
    n_layers, n_rows, columns = g.shape
    if columns < 2 or n_rows < 2:
        return gradients.clone(), g.new_zeros(n_layers)
    w, g = w.reshape(-1, columns), g.reshape(-1, columns)  # (B * N, D)
    keys = rng.as_tensor(key).to(g.device).reshape(-1, 1).expand(n_layers, 1)
    pairs = _candidates(g, keys)
    if not has_values(g):
        # Shapes in a compiled graph must not depend on the data: compute every collision and keep those that happen.
        collides = pairs.draw < _probability(pairs, w, rate)
        i, j = (torch.where(collides[:, None], new, old) for new, old in zip(*_scattered(pairs, g, keys), strict=True))
        share = collides.view(n_layers, -1).to(torch.float32).mean(1)
    else:
        # exp(-distance) is at most 1, so the speed alone rules out most pairs before any distance is computed.
        pairs = pairs.select(pairs.draw < rate * pairs.speed)
        pairs = pairs.select(pairs.draw < _probability(pairs, w, rate))
        (i, j), _ = _scattered(pairs, g, keys)
        share = torch.bincount(pairs.number // (n_rows // 2), minlength=n_layers) / (n_rows // 2)
    result = g.index_copy(0, torch.cat((pairs.first, pairs.second)), torch.cat((i, j)))
    return result.view(shape).to(gradients.dtype), share


class _Pairs(NamedTuple):
    """K pairs of rows, one element per pair in each field."""

    number: Tensor  # of the pair; layer b has the numbers b * P to (b + 1) * P - 1
    first: Tensor  # position of row i among the rows of all layers, 0 to B * N - 1
    second: Tensor  # position of row j
    draw: Tensor  # uniform in [0, 1); the pair collides if this is below its probability
    speed: Tensor  # |g_i - g_j| / M; 0 if it is not finite

    def select(self, mask: Tensor) -> _Pairs:
        indices = mask.nonzero().squeeze(1)
        return _Pairs(*(field.index_select(0, indices) for field in self))


def _candidates(g: Tensor, keys: Tensor) -> _Pairs:
    """A random perfect matching of the rows of each layer; g is (B * N, D), keys (B, 1)."""
    n_layers, device = len(keys), g.device
    n_rows = len(g) // n_layers
    n_pairs = n_rows // 2
    # Counters, in order: positions of the rows in the matching, draws of the pairs, directions (see `_directions`).
    bits = rng.bits(keys, torch.arange(n_rows + n_pairs, device=device))  # (B, N + P)
    order = bits[:, :n_rows].argsort(dim=1, stable=True)
    if n_layers > 1:
        order = order + n_rows * torch.arange(n_layers, device=device)[:, None]
    first, second = order[:, :n_pairs].flatten(), order[:, n_pairs : 2 * n_pairs].flatten()
    speeds = lengths(g.index_select(0, second).sub_(g.index_select(0, first))).view(n_layers, n_pairs)
    speeds = torch.where(speeds.isfinite(), speeds, 0)
    fastest = speeds.amax(1, keepdim=True)  # M
    speeds = (speeds / torch.where(fastest > 0, fastest, 1)).flatten()
    draws = rng.uniform(bits[:, n_rows:]).flatten()
    return _Pairs(torch.arange(n_layers * n_pairs, device=device), first, second, draws, speeds)


def _probability(pairs: _Pairs, w: Tensor, rate: float | Tensor) -> Tensor:
    """Collision probability of each pair, in [0, 1]; 0 if the distance is not finite. w is (B * N, D)."""
    distances = lengths(w.index_select(0, pairs.second).sub_(w.index_select(0, pairs.first))).squeeze(1)
    return (rate * pairs.speed * (-distances).exp()).nan_to_num(0.0).clamp(max=1)


def _scattered(pairs: _Pairs, g: Tensor, keys: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Rows i and j of each pair after their collision, and the same rows before it, (K, D) each."""
    # Indexing with g[i] takes three times as long as index_select.
    g_i, g_j = g.index_select(0, pairs.first), g.index_select(0, pairs.second)
    mean = (g_i + g_j) / 2
    half = lengths(g_i - g_j) / 2 * _directions(pairs.number, g, keys)
    return (mean + half, mean - half), (g_i, g_j)


def _directions(numbers: Tensor, g: Tensor, keys: Tensor) -> Tensor:
    """Uniform points on the unit sphere, (K, D); the point of a pair does not depend on which other pairs collide."""
    columns, n_rows = g.shape[1], len(g) // len(keys)
    n_pairs, n_counters = n_rows // 2, (columns + 1) // 2  # two normal numbers per counter
    starts = n_rows + n_pairs + numbers % n_pairs * n_counters  # (K,)
    counters = starts[:, None] + torch.arange(n_counters, device=g.device)
    normals = rng.normal(rng.bits(keys.index_select(0, numbers // n_pairs), counters))[:, :columns].to(g.dtype)
    return normals / lengths(normals)
