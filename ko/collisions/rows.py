"""Rows of a layer as vectors: lengths, directions and finiteness.

Shapes: (N, D) for a layer of N rows and D columns, with any number of batch dimensions before.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Products with fewer multiplications than this are not faster in bfloat16 (measured: 256 x 256 x 256 is 1.8 times as
# fast).
_BF16_FROM = 2**23
_CPU_HAS_BF16: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def gram_dtype(rows: Tensor) -> torch.dtype:
    """The dtype in which to compute the cosines of `rows` (..., N, D): bfloat16 where it is faster on the device.

    A cosine then has an error of at most 2^-8. float64 rows stay float64.
    """
    if rows.dtype == torch.float64 or rows.shape[-2] ** 2 * rows.shape[-1] < _BF16_FROM:
        return computable(rows).dtype
    if rows.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if rows.device.type == "cpu" and _CPU_HAS_BF16 else torch.float32


def computable(rows: Tensor) -> Tensor:
    """Half-precision rows as float32, which is precise enough for lengths and sums; other dtypes unchanged."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def lengths(rows: Tensor) -> Tensor:
    """Euclidean length of each row, (..., N, D) -> (..., N, 1)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return norms


def inverse(lengths: Tensor, kept: Tensor) -> Tensor:
    """1 / length, and 0 for rows that are not `kept` or too short to have a direction.

    Too short is below the square root of the dtype's smallest normal number (1.1e-19 in float32), where the square of
    the length loses its digits.
    """
    return torch.where(kept & (lengths >= torch.finfo(lengths.dtype).tiny ** 0.5), 1 / lengths, 0)


def scaled(rows: Tensor, factors: Tensor, dtype: torch.dtype | None = None, *, all_finite: bool = False) -> Tensor:
    """Rows times their factors, in one pass and without an intermediate copy.

    Args:
        rows: (..., N, D).
        factors: (..., N, 1).
        dtype: of the result (default: that of the rows).
        all_finite: whether every row is known to be finite. Otherwise rows with factor 0 become zero even if they hold
            NaN or infinity (0 * inf is NaN). On a CPU this takes a fifth of the time of `torch.where` over the matrix.
    """
    result = torch.mul(rows, factors, out=torch.empty_like(rows, dtype=dtype))
    return result if all_finite else result.nan_to_num_(nan=0.0)


def unit_rows(rows: Tensor) -> Tensor:
    """The rows (..., N, D) divided by their lengths; rows that are zero or not finite become zero."""
    rows = computable(rows)
    norms = lengths(rows)
    return scaled(rows, inverse(norms, norms.isfinite()))


def block_rows(rows: Tensor, n_bytes: int) -> int:
    """Rows of the N x N matrix of pairs that fit in `n_bytes`, for all layers of `rows` (..., N, D); at least one."""
    return max(1, n_bytes // (rows.numel() // rows.shape[-1] * rows.element_size()))
