"""Distribution of the velocities (gradient rows) of a layer: temperature, energy and entropy.

Shapes: (N, D) for a layer of N rows and D columns, or (B, N, D) for B layers. Results are scalars, or (B,), in the
precision of the input; half precision is computed in float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ko.collisions.rows import computable, lengths

MAXWELLIAN = 0.5 * math.log(2 * math.pi * math.e)
"""`velocity_entropy` of a Maxwellian, 1.419 nats: the maximum over all distributions of unit variance."""

BIN_WIDTH = 0.125
"""Histogram bin width of `velocity_entropy`, in units of the thermal speed (the square root of the temperature)."""

_BINS_PER_SIDE = 64  # of the bin that is centered at 0; values farther out count in the outermost bin
_BINS = 2 * _BINS_PER_SIDE + 1


@torch.no_grad()
def temperature(gradients: Tensor) -> Tensor:
    """Temperature of the velocities, >= 0: mean over rows i and dimensions d of (g_id - mean_j g_jd)^2.

    This is the kinetic temperature of a gas of particles of mass 1, with Boltzmann's constant 1 (Bird 1994). Rows that
    are not finite are left out; without a finite row it is 0.

    Args:
        gradients: (N, D), or (B, N, D) for B layers.

    Returns:
        Scalar, or (B,).
    """
    return gas(gradients).temperature


@torch.no_grad()
def velocity_energy(gradients: Tensor) -> Tensor:
    """Mean squared length of the velocities g_i, >= 0.

    It equals D times the temperature plus the squared length of the mean velocity. Rows that are not finite are left
    out; without a finite row it is 0.

    Args:
        gradients: (N, D), or (B, N, D) for B layers.

    Returns:
        Scalar, or (B,).
    """
    return gas(gradients).energy


@torch.no_grad()
def velocity_entropy(gradients: Tensor) -> Tensor:
    """Entropy of the standardized velocity components (g_id - mean_j g_jd) / sqrt(temperature), in nats.

    At most `MAXWELLIAN` = 1.419, up to the error of the estimate. The difference from `MAXWELLIAN` is the relative
    entropy between the distribution of a component and the Maxwellian of the same temperature. It is large for
    concentrated velocities (most rows at rest or alike, few fast). The entropy does not depend on the scale of the
    gradients.

    Estimator: -sum_k p_k ln(p_k / h) over a histogram with bins of width h = 1/8. One bin is centered at 0; the
    outermost bins hold all values beyond 8. The bin width adds h^2 / 24 = 0.0007 for a Maxwellian. n values in K
    occupied bins underestimate the entropy by (K - 1) / (2 n), which is 0.01 for 10 x 256 values. The minimum, with all
    values in one bin, is ln h = -2.08; it is also the result for zero or equal rows. Rows that are not finite are left
    out.

    Args:
        gradients: (N, D), or (B, N, D) for B layers.

    Returns:
        Scalar, or (B,).
    """
    return gas(gradients).entropy()


class Gas(NamedTuple):
    """Velocities of a layer and their moments."""

    peculiar: Tensor  # (..., N, D): peculiar velocities, that is, velocities minus their mean
    finite: Tensor  # (..., N, 1) bool
    temperature: Tensor  # (...)
    energy: Tensor  # (...)

    def entropy(self) -> Tensor:
        """See `velocity_entropy`."""
        columns = self.peculiar.shape[-1]
        # Below this temperature the peculiar velocities are rounding errors of the mean.
        least = (4 * torch.finfo(self.peculiar.dtype).eps) ** 2 * self.energy / columns
        thermal = torch.where(self.temperature > least, self.temperature, math.inf).sqrt()
        bins = (self.peculiar / (BIN_WIDTH * thermal[..., None, None])).round_()
        bins = bins.clamp_(-_BINS_PER_SIDE, _BINS_PER_SIDE)
        bins = torch.where(self.finite, bins.add_(_BINS_PER_SIDE), _BINS)  # bin _BINS holds the rows left out
        n_layers = self.energy.numel()
        offsets = torch.arange(n_layers, device=bins.device) * (_BINS + 1)
        indices = bins.view(n_layers, -1).long() + offsets[:, None]
        counts = torch.bincount(indices.flatten(), minlength=n_layers * (_BINS + 1)).view(n_layers, -1)[:, :_BINS]
        shares = counts.to(self.energy) / counts.sum(1, keepdim=True).clamp(min=1)
        entropy: Tensor = torch.special.entr(shares).sum(1) + math.log(BIN_WIDTH)
        return entropy.view_as(self.energy)


def gas(gradients: Tensor) -> Gas:
    """Moments of the velocities (..., N, D); rows that are not finite are left out."""
    g = computable(gradients)
    speeds = lengths(g)  # (..., N, 1)
    finite = speeds.isfinite()
    count = finite.sum(-2, keepdim=True).clamp(min=1)  # (..., 1, 1)
    mean = torch.where(finite, g, 0).sum(-2, keepdim=True) / count  # (..., 1, D)
    peculiar = torch.where(finite, g - mean, 0)
    number = count[..., 0, 0]
    return Gas(
        peculiar,
        finite,
        peculiar.square().sum((-1, -2)) / (number * g.shape[-1]),
        torch.where(finite, speeds, 0).square().sum((-1, -2)) / number,
    )
