"""The collision operators of KO as pure functions of a layer's weights and gradients.

Row i is neuron i: its weights are the particle's position w_i, its gradient the velocity g_i. Shapes: N rows, D
columns. Source: arXiv 2505.14777 for the soft form; Bird 1994 and Nanbu 1980 for the hard one. Half-precision input is
computed in float32; the answer has the gradients' dtype and is always a new tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ko import counter

# The bounded form keeps gamma times an upper bound of the largest eigenvalue of C below 1, with this much to spare.
BOUND = 0.95


def soft(weights: Tensor, gradients: Tensor, gamma: float, bounded: bool = False) -> Tensor:
    """Let rows that are alike in weight and in gradient repel: `g - gamma * C g`.

    C_ij = cos(w_i, w_j) * cos(g_i, g_j), the diagonal included. A zero row has cosine 0 with every row. A row with a
    NaN or an infinity is left out of C and its gradient passes through unchanged.

    Args:
        weights: (N, D).
        gradients: (N, D).
        gamma: strength, >= 0.
        bounded: use min(gamma, 0.95 / max_i sum_j |C_ij|), with which the result stays a descent direction.

    Returns:
        The gradients after the collision, (N, D).
    """
    w, g = _computable(weights), _computable(gradients)
    weight_norms, gradient_norms = _norms(w), _norms(g)  # (N, 1)
    in_c = weight_norms.isfinite() & gradient_norms.isfinite()
    velocities = _scaled(g, in_c)
    w_unit, g_unit = _scaled(w, _inverse(weight_norms, in_c)), _scaled(g, _inverse(gradient_norms, in_c))
    cosines = (w_unit @ w_unit.mT).mul_(g_unit @ g_unit.mT)  # C, (N, N)
    if bounded:
        # A tensor and not a number, so that no device has to be waited for; without any colliding row it is gamma.
        strength = (BOUND / cosines.abs().sum(dim=1).amax()).clamp(max=gamma)
        return torch.addmm(g, cosines, velocities * strength, alpha=-1).to(gradients.dtype)
    return torch.addmm(g, cosines, velocities, alpha=-gamma).to(gradients.dtype)


def hard(weights: Tensor, gradients: Tensor, rate: float, key: int) -> Tensor:
    """Let random pairs of rows collide elastically; momentum and energy of each pair are conserved.

    Candidate pairs are a random perfect matching (an odd row sits out). A pair collides with probability
    `rate * |g_i - g_j| / M * exp(-|w_i - w_j|)`, clipped to [0, 1], M the largest |g_i - g_j| among the candidates;
    then the relative velocity keeps its length and turns to a uniformly random direction. Pairs with a row that is not
    finite do not collide. With D = 1 nothing happens, since a collision would only swap the two.

    Args:
        weights: (N, D).
        gradients: (N, D).
        rate: scale of the collision probability, >= 0.
        key: decides all random numbers (see `ko.counter.key`).

    Returns:
        The gradients after the collisions, (N, D).
    """
    w, g = _computable(weights), _computable(gradients)
    n_rows, dimensions = g.shape
    if dimensions < 2:
        return gradients.clone()
    n_pairs = n_rows // 2
    # Counters: a row's place in the matching, then a pair's acceptance, then (see _directions) its direction.
    bits = counter.bits(key, torch.arange(n_rows + n_pairs, device=g.device))
    order = bits[:n_rows].argsort(stable=True)
    first, second = order[:n_pairs], order[n_pairs : 2 * n_pairs]  # (P,) each
    probability = pair_probability(w, g, first, second, rate)
    hit = (counter.uniform(bits[n_rows:]) < probability).nonzero().squeeze(1)  # (K,) indices of pairs
    i, j = first[hit], second[hit]
    g_i, g_j = g.index_select(0, i), g.index_select(0, j)  # (K, D); g[i] takes three times as long on a CPU
    mean = (g_i + g_j) / 2
    turned = _norms(g_i - g_j) / 2 * _directions(key, hit, len(bits), dimensions, g.dtype)
    rows, collided = torch.cat((i, j)), torch.cat((mean + turned, mean - turned))
    return g.index_copy(0, rows, collided).to(gradients.dtype)


def pair_probability(weights: Tensor, gradients: Tensor, first: Tensor, second: Tensor, rate: float) -> Tensor:
    """Probability (P,) that the candidate pairs (first, second), each (P,) row indices, collide; 0 if not finite."""
    speeds = _norms(gradients.index_select(0, first) - gradients.index_select(0, second)).squeeze(1)
    distances = _norms(weights.index_select(0, first) - weights.index_select(0, second)).squeeze(1)
    speeds = torch.where(speeds.isfinite() & distances.isfinite(), speeds, 0)
    fastest = speeds.amax()
    relative = speeds / torch.where(fastest > 0, fastest, 1)
    return torch.where(speeds > 0, rate * relative * (-distances).exp(), 0).clamp(max=1)


def unit_rows(rows: Tensor) -> Tensor:
    """The rows (N, D) divided by their lengths; rows that are zero or not finite become zero."""
    rows = _computable(rows)
    norms = _norms(rows)
    return _scaled(rows, _inverse(norms, norms.isfinite()))


def _directions(key: int, pairs: Tensor, start: int, dimensions: int, dtype: torch.dtype) -> Tensor:
    """Uniform points on the unit sphere, (K, D), a function of each pair's index and not of which others collide.

    Their counters begin at `start`.
    """
    n_counters = (dimensions + 1) // 2  # of a pair: each gives two normal numbers
    counters = (pairs[:, None] * n_counters) + torch.arange(start, start + n_counters, device=pairs.device)
    normals = counter.normal(counter.bits(key, counters))[:, :dimensions].to(dtype)
    return normals / _norms(normals)


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # (N, 1)
    return norms


def _inverse(norms: Tensor, kept: Tensor) -> Tensor:
    """1 / norm, (N, 1); 0 where the norm is zero or the row is not to be kept."""
    return torch.where(kept & (norms > 0), 1 / norms, 0)


def _scaled(rows: Tensor, factors: Tensor) -> Tensor:
    """Rows times their factors; a row with factor 0 becomes zero even if it holds NaN or infinity (0 * inf is NaN).

    On a CPU this takes a fifth of the time of `torch.where` over the matrix.
    """
    return (rows * factors).nan_to_num_(nan=0.0)


def _computable(rows: Tensor) -> Tensor:
    """Half precision is too coarse for the cosines; float32 and float64 stay what they are."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
