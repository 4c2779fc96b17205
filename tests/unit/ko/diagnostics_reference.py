"""Float64 numpy references of the diagnostics, and rows and models to apply them to."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float64]

MIN_ENTROPY = math.log(1 / 8)  # all components in one bin


def cosines(rows: Rows) -> Rows:
    """Cosines of all pairs of rows, one at a time; a zero row has cosine 0 with every row, including itself."""
    return np.array(
        [
            [float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) if a.any() and b.any() else 0.0 for b in rows]
            for a in rows
        ]
    )


def reference_correlation(rows: Rows) -> float:
    n, c = len(rows), cosines(rows)
    return float(np.mean([abs(c[i, j]) for i in range(n) for j in range(n) if i != j]))


def reference_rank(rows: Rows) -> float:
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def reference_temperature(rows: Rows) -> float:
    mean = rows.mean(axis=0)
    return float(np.mean([np.mean((row - mean) ** 2) for row in rows]))


def reference_energy(rows: Rows) -> float:
    return float(np.mean([row @ row for row in rows]))


def reference_entropy(rows: Rows) -> float:
    """Loop over all components; each counts at the nearest multiple of 1/8, within 8 of 0."""
    h = 1 / 8
    bins: dict[int, int] = {}
    scale = math.sqrt(reference_temperature(rows))
    for component in ((rows - rows.mean(axis=0)) / scale).flatten():
        position = max(-64, min(64, round(component / h)))
        bins[position] = bins.get(position, 0) + 1
    return -sum(n / rows.size * math.log(n / rows.size / h) for n in bins.values())


def reference_eigenvalue(w: Rows, g: Rows) -> float:
    return float(np.linalg.eigvalsh(cosines(w) * cosines(g))[-1])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def aligned(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Rows along one direction plus noise of a third of their length."""
    return normal(1, columns, seed=seed) + normal(rows, columns, seed=seed + 1) / 3
