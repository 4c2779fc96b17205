"""Rows of a layer as vectors: their lengths, directions and which of them can be computed with.

Shapes: B layers of the same shape, N rows, D columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Products of fewer multiplications than this gain nothing from bfloat16 (measured: 256 x 256 x 256 gains 1.8 times).
_BF16_FROM = 2**23
_CPU_HAS_BF16: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def gram_dtype(rows: Tensor) -> torch.dtype:
    """The dtype to compute the cosines of `rows` (..., N, D) in: bfloat16 where the device gains by it.

    A cosine then has an error of at most 2^-8. float64 rows stay float64.
    """
    if rows.dtype == torch.float64 or rows.shape[-2] ** 2 * rows.shape[-1] < _BF16_FROM:
        return computable(rows).dtype
    if rows.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if rows.device.type == "cpu" and _CPU_HAS_BF16 else torch.float32


def computable(rows: Tensor) -> Tensor:
    """Half precision is too coarse for lengths and sums; float32 and float64 stay what they are."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def lengths(rows: Tensor) -> Tensor:
    """Euclidean length of each row, (..., N, 1)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return norms


def inverse(lengths: Tensor, kept: Tensor) -> Tensor:
    """1 / length; 0 where the row is not to be kept, or its length is zero or so small that its square has no digits.

    That is below 1.1e-19 in float32.
    """
    return torch.where(kept & (lengths >= torch.finfo(lengths.dtype).tiny ** 0.5), 1 / lengths, 0)


def scaled(rows: Tensor, factors: Tensor, dtype: torch.dtype | None = None, *, clean: bool = False) -> Tensor:
    """Rows times their factors, as `dtype` (default: that of the rows), in one pass and without a copy in between.

    Unless the rows are known to be `clean`, those with factor 0 become zero even where they hold NaN or infinity
    (0 * inf is NaN). On a CPU this takes a fifth of the time of `torch.where` over the matrix.
    """
    result = torch.mul(rows, factors, out=torch.empty_like(rows, dtype=dtype))
    return result if clean else result.nan_to_num_(nan=0.0)


def unit_rows(rows: Tensor) -> Tensor:
    """The rows (..., N, D) divided by their lengths; rows that are zero or not finite become zero."""
    rows = computable(rows)
    norms = lengths(rows)
    return scaled(rows, inverse(norms, norms.isfinite()))


def block_rows(rows: Tensor, n_bytes: int) -> int:
    """Rows of the matrix of all pairs that `n_bytes` hold, at least one, for all layers of `rows` (..., N, D)."""
    return max(1, n_bytes // (rows.numel() // rows.shape[-1] * rows.element_size()))
