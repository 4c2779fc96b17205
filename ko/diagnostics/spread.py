"""How the weights and the velocities of one layer are spread: rank, temperature, energy and entropy.

Shapes: (N, D) for a layer of N rows and D columns, or (B, N, D) for B of them; answers are scalars or (B,), in the
input's precision, half precision in float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ko.collisions.rows import computable, lengths

MAXWELLIAN = 0.5 * math.log(2 * math.pi * math.e)
"""1.419: `velocity_entropy` of a Maxwellian, the largest that any distribution of unit variance has."""

BIN_WIDTH = 0.125
"""Of `velocity_entropy`, in units of the thermal speed (the square root of the temperature)."""

_BINS_A_SIDE = 64  # around the bin that is centred at 0; what is farther out counts in the last bin
_BINS = 2 * _BINS_A_SIDE + 1


@torch.no_grad()
def effective_rank(weights: Tensor) -> Tensor:
    """Effective rank: exp(-sum_k p_k ln p_k), p_k = sigma_k / sum sigma, of the singular values; in [1, min(N, D)].

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007. 1 if all rows are parallel (condensed), min(N, D) if
    all singular values are equal; 0 if all weights are zero. Rows that are not finite count as zero.

    The singular values are square roots of eigenvalues of the smaller Gram matrix, in float64, since float32 would
    lose those below 1/3000 of the largest: 2 N D min(N, D) flops and an eigenvalue problem of size min(N, D).
    """
    w = computable(weights)
    w = torch.where(lengths(w).isfinite(), w, 0).double()
    gram = w @ w.mT if w.shape[-2] <= w.shape[-1] else w.mT @ w
    sigma = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()  # (..., min(N, D))
    total = sigma.sum(-1, keepdim=True)
    rank = torch.special.entr(sigma / torch.where(total > 0, total, 1)).sum(-1).exp()
    return torch.where(total.squeeze(-1) > 0, rank, 0)


@torch.no_grad()
def temperature(gradients: Tensor) -> Tensor:
    """Temperature of the velocities: mean over rows and dimensions of (g_id - mean_j g_jd)^2, >= 0.

    The kinetic temperature of a gas of particles of mass 1, with Boltzmann's constant 1 (Bird 1994). Rows that are not
    finite are left out; 0 where there is no other.
    """
    return gas(gradients).temperature


@torch.no_grad()
def velocity_energy(gradients: Tensor) -> Tensor:
    """Mean squared length of the velocities g_i, >= 0: D times the temperature, and the square of the mean velocity.

    Rows that are not finite are left out; 0 where there is no other.
    """
    return gas(gradients).energy


@torch.no_grad()
def velocity_entropy(gradients: Tensor) -> Tensor:
    """Entropy of the standardized velocity components (g_id - mean_j g_jd) / sqrt(temperature), in nats.

    At most `MAXWELLIAN` = 1.419, up to the estimate's error. What is missing is the relative entropy of a component's
    distribution to the Maxwellian of the same temperature; condensed velocities (most rows at rest or alike, few fast)
    miss much of it. Independent of the scale of the gradients.

    Estimator: -sum_k p_k ln(p_k / h) over a histogram of bins of width h = 1/8, one centred at 0, the outermost ones
    with all that is farther than 8 out. The width adds h^2 / 24 = 0.0007 for a Maxwellian; n numbers in K occupied bins
    miss (K - 1) / (2 n), that is 0.01 for 10 x 256 of them. ln h = -2.08, everything in one bin, is the least it can
    say, and what it says of zero or equal rows. Rows that are not finite are left out.
    """
    return gas(gradients).entropy()


class Gas(NamedTuple):
    """Velocities of a layer, and what is known of them."""

    peculiar: Tensor  # (..., N, D): velocities less their mean
    kept: Tensor  # (..., N, 1) bool: rows that are finite
    temperature: Tensor  # (...)
    energy: Tensor  # (...)

    def entropy(self) -> Tensor:
        """See `velocity_entropy`."""
        columns = self.peculiar.shape[-1]
        # Below this, what is left after the mean is subtracted is its rounding error.
        least = (4 * torch.finfo(self.peculiar.dtype).eps) ** 2 * self.energy / columns
        thermal = torch.where(self.temperature > least, self.temperature, math.inf).sqrt()
        bins = (self.peculiar / (BIN_WIDTH * thermal[..., None, None])).round_().clamp_(-_BINS_A_SIDE, _BINS_A_SIDE)
        bins = torch.where(self.kept, bins.add_(_BINS_A_SIDE), _BINS)  # one more for what is left out
        n_layers = self.energy.numel()
        first = torch.arange(n_layers, device=bins.device) * (_BINS + 1)
        places = bins.view(n_layers, -1).long() + first[:, None]
        counts = torch.bincount(places.flatten(), minlength=n_layers * (_BINS + 1)).view(n_layers, -1)[:, :_BINS]
        shares = counts.to(self.energy) / counts.sum(1, keepdim=True).clamp(min=1)
        entropy: Tensor = torch.special.entr(shares).sum(1) + math.log(BIN_WIDTH)
        return entropy.view_as(self.energy)


def gas(gradients: Tensor) -> Gas:
    """The rows of a layer (..., N, D) as particles."""
    g = computable(gradients)
    speeds = lengths(g)  # (..., N, 1)
    kept = speeds.isfinite()
    count = kept.sum(-2, keepdim=True).clamp(min=1)  # (..., 1, 1)
    mean = torch.where(kept, g, 0).sum(-2, keepdim=True) / count  # (..., 1, D)
    peculiar = torch.where(kept, g - mean, 0)
    number = count[..., 0, 0]
    return Gas(
        peculiar,
        kept,
        peculiar.square().sum((-1, -2)) / (number * g.shape[-1]),
        torch.where(kept, speeds, 0).square().sum((-1, -2)) / number,
    )
