"""Effective rank of the weights of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ko.collisions.rows import computable, lengths


@torch.no_grad()
def effective_rank(weights: Tensor) -> Tensor:
    r"""Effective rank of a matrix, in [1, min(N, D)].

    .. math::
        \exp\left(-\sum_k p_k \ln p_k\right), \qquad p_k = \sigma_k / \sum_l \sigma_l

    with the singular values :math:`\sigma_k`. It is 1 if all rows are parallel, min(N, D) if all singular
    values are equal, and 0 if all weights are zero. Rows that are not finite count as zero. Source: Roy and Vetterli,
    "The effective rank", EUSIPCO 2007.

    The singular values are square roots of eigenvalues of the smaller Gram matrix, computed in float64, because float32
    would lose those below 1/3000 of the largest. Costs 2 N D min(N, D) flops and an eigenvalue problem of size
    min(N, D).

    Args:
        weights: (N, D), or (B, N, D) for B layers.

    Returns:
        Scalar, or (B,), in float64.
    """
    w = computable(weights)
    w = torch.where(lengths(w).isfinite(), w, 0).double()
    gram = w @ w.mT if w.shape[-2] <= w.shape[-1] else w.mT @ w
    sigma = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()  # (..., min(N, D))
    total = sigma.sum(-1, keepdim=True)
    rank = torch.special.entr(sigma / torch.where(total > 0, total, 1)).sum(-1).exp()
    return torch.where(total.squeeze(-1) > 0, rank, 0)
