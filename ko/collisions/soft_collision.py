"""Soft collisions: rows that are alike in weight and in gradient repel each other. Source: arXiv 2505.14777."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko import rng
from ko.collisions.rows import block_rows, computable, gram_dtype, inverse, lengths, scaled
from ko.compiling import has_values

BOUND = 0.95
"""The bounded form keeps gamma times an upper bound of the largest eigenvalue of C at or below this value, under 1."""

BLOCK_BYTES = 64 * 2**20
"""Memory limit for C: a larger matrix is computed one block of rows at a time."""

# On a CPU the cosines of a block are computed in strips of this many rows: the part left of the diagonal follows from
# symmetry, and the product of the two cosines stays in the cache (512 rows of 4,608 columns: 8.1 ms, without strips
# 11.4 ms; strips of 64 and 256 rows take 8.7 and 9.0 ms).
_CPU_STRIP_ROWS = 128

# On a CPU random groups are computed this many bytes of rows at a time, in at most 64 parts.
_CPU_CHUNK_BYTES = 2 * 2**20


def soft(
    weights: Tensor,
    gradients: Tensor,
    gamma: float | Tensor,
    bounded: bool = False,
    *,
    group_size: int | None = None,
    key: int | Tensor = 0,
    gram: torch.dtype | None = None,
) -> Tensor:
    r"""Soft collision, :math:`\tilde g = g - \gamma C g`: rows that are alike in weight and in gradient repel.

    :math:`C_{ij} = \cos(w_i, w_j) \cos(g_i, g_j)`, diagonal included. A zero row has cosine 0 with every row, itself
    included. A row with a NaN or an infinity is left out of C, and its gradient is returned unchanged.

    Costs 6 N^2 D flops and at most `BLOCK_BYTES` of memory for C; with `group_size`, 6 N D group_size flops. The
    product C g follows `torch.set_float32_matmul_precision`: it is computed in float32 unless that is "medium".

    Args:
        weights: (N, D), or (B, N, D) for B layers that do not interact.
        gradients: same shape as `weights`.
        gamma: strength, >= 0; a float or a 0-d tensor.
        bounded: use min(gamma, 0.95 / max_i sum_j |C_ij|) instead of gamma, which keeps the result a descent direction
            (default False).
        group_size: sum only within random groups of about this many rows, >= 2 (random batch method, Jin, Li and Liu
            2020). With N rows and a group of p, the off-diagonal part of C is multiplied by (N - 1) / (p - 1), which
            makes the sum unbiased in the unbounded form. None (default): sum over all rows.
        key: key of the random groups (see `ko.rng.key`, default 0); for B layers, B keys as (B,) int64.
        gram: dtype of the cosines; None (default): `gram_dtype` of the gradients.

    Returns:
        The gradients after the collision: a new tensor with the shape and dtype of `gradients`.
    """
    w, g = computable(weights), computable(gradients)
    if group_size is None or group_size >= g.shape[-2]:
        return _full_sum(_rows(w, g, gram), g, gamma, bounded).to(gradients.dtype)
    return _random_batch_sum(w, g, gamma, bounded, group_size, key, gram).to(gradients.dtype)


class _Rows(NamedTuple):
    """Directions and velocities of the rows of one or more layers."""

    w_unit: Tensor  # (..., N, D); zero for rows without a direction
    g_unit: Tensor  # (..., N, D); zero for rows without a direction
    velocities: Tensor  # (..., N, D): the gradients, zero for rows that are not finite
    finite: Tensor  # (..., N, 1) bool
    has_direction: Tensor  # (..., N) bool: the diagonal of C


def _rows(w: Tensor, g: Tensor, gram: torch.dtype | None) -> _Rows:
    gram = gram_dtype(g) if gram is None else gram
    w_lengths, g_lengths = lengths(w), lengths(g)  # (..., N, 1)
    finite = w_lengths.isfinite() & g_lengths.isfinite()
    w_inverse, g_inverse = inverse(w_lengths, finite), inverse(g_lengths, finite)
    all_finite = _all_without_sync(finite)
    return _Rows(
        scaled(w, w_inverse, gram, all_finite=all_finite),
        scaled(g, g_inverse, gram, all_finite=all_finite),
        g if all_finite else scaled(g, finite),
        finite,
        ((w_inverse > 0) & (g_inverse > 0)).squeeze(-1),
    )


def _all_without_sync(flags: Tensor) -> bool:
    """Whether all flags are set; False where reading them would synchronize a GPU or break a compiled graph."""
    return flags.device.type == "cpu" and has_values(flags) and bool(flags.all())


def _cosines(layer: _Rows, rows: slice, columns: slice) -> Tensor:
    """A block of C, (..., rows, columns); the two cosines are multiplied in the precision of the velocities."""
    alike = layer.w_unit[..., rows, :] @ layer.w_unit[..., columns, :].mT
    return alike.to(layer.velocities.dtype).mul_(layer.g_unit[..., rows, :] @ layer.g_unit[..., columns, :].mT)


def _block(layer: _Rows, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of C from column `start` on, (..., stop - start, N - start)."""
    strip_rows = _CPU_STRIP_ROWS if layer.w_unit.device.type == "cpu" else stop - start
    if stop - start <= strip_rows:
        return _cosines(layer, slice(start, stop), slice(start, None))
    *batch, n_rows, _ = layer.w_unit.shape
    block = layer.velocities.new_empty(*batch, stop - start, n_rows - start)
    for top in range(start, stop, strip_rows):
        bottom = min(top + strip_rows, stop)
        strip = _cosines(layer, slice(top, bottom), slice(top, None))
        block[..., top - start : bottom - start, top - start :] = strip
        block[..., bottom - start :, top - start : bottom - start] = strip[..., bottom - top : stop - top].mT
    return block


def _full_sum(layer: _Rows, g: Tensor, gamma: float | Tensor, bounded: bool) -> Tensor:
    """`g - gamma * C g` over all rows, with C in memory unless it is larger than `BLOCK_BYTES`."""
    if g.shape[-2] > block_rows(g, BLOCK_BYTES):
        return _full_sum_in_blocks(layer, g, gamma, bounded)
    c = _block(layer, 0, g.shape[-2])
    strength = _bounded_gamma(gamma, torch.linalg.vector_norm(c, ord=1, dim=-1)) if bounded else gamma
    diagonal = c.diagonal(dim1=-2, dim2=-1)
    if layer.w_unit.dtype != g.dtype and torch.get_float32_matmul_precision() == "medium":
        # torch's setting allows float32 products in bfloat16. The diagonal is kept in full precision.
        diagonal.zero_()
        change = (c.mul_(strength)).bfloat16() @ layer.velocities.bfloat16()
        return (g * (1 - layer.has_direction[..., None] * strength)).sub_(change)
    c.mul_(-strength)
    diagonal.add_(1)
    result = c @ layer.velocities
    return result if layer.velocities is g else torch.where(layer.finite, result, g)


def _full_sum_in_blocks(layer: _Rows, g: Tensor, gamma: float | Tensor, bounded: bool) -> Tensor:
    """`g - gamma * C g`, one block of rows of C at a time; symmetry gives the columns left of the diagonal."""
    n_rows, v, height = g.shape[-2], layer.velocities, block_rows(g, BLOCK_BYTES)
    product = torch.zeros_like(g)  # C g
    sums = g.new_zeros(g.shape[:-1])  # of |C_ij| over j
    for start in range(0, n_rows, height):
        stop = min(start + height, n_rows)
        block = _block(layer, start, stop)
        right = block[..., stop - start :]  # its transpose is the part of C below the block
        if bounded:
            sums[..., start:stop] += torch.linalg.vector_norm(block, ord=1, dim=-1)
            sums[..., stop:] += torch.linalg.vector_norm(right, ord=1, dim=-2)
        _add_product(product[..., start:stop, :], block, v[..., start:, :])
        if stop < n_rows:
            _add_product(product[..., stop:, :], right.mT, v[..., start:stop, :])
    return g - product.mul_(_bounded_gamma(gamma, sums) if bounded else gamma)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add `a @ b` to `total` in place."""
    if total.ndim == 2:  # addmm_ accepts any memory layout, baddbmm_ copies some
        total.addmm_(a, b)
    else:
        total.baddbmm_(a, b)


def _random_batch_sum(
    w: Tensor,
    g: Tensor,
    gamma: float | Tensor,
    bounded: bool,
    group_size: int,
    key: int | Tensor,
    gram: torch.dtype | None,
) -> Tensor:
    """`g - gamma * C g` estimated within random groups, whose sizes differ by at most one."""
    n_rows, columns = g.shape[-2:]
    w_rows, g_rows = w.reshape(-1, columns), g.reshape(-1, columns)  # (B * N, D)
    result = torch.empty_like(g_rows)
    sums = g.new_empty(len(g_rows))  # of |C_ij| over j
    for members in _random_groups(g, group_size, key):
        w_groups, g_groups = (
            t.index_select(0, members.flatten()).view(*members.shape, columns) for t in (w_rows, g_rows)
        )
        groups = _rows(w_groups, g_groups, gram)
        c = _cosines(groups, slice(None), slice(None)).mul_((n_rows - 1) / (members.shape[1] - 1))
        c.diagonal(dim1=1, dim2=2).copy_(groups.has_direction)  # the diagonal is exact
        if bounded:
            sums.index_copy_(0, members.flatten(), torch.linalg.vector_norm(c, ord=1, dim=-1).flatten())
            update = c @ groups.velocities  # C g; gamma needs the row sums of all groups
        else:
            update = torch.baddbmm(g_groups, c.mul_(-gamma), groups.velocities)
        result.index_copy_(0, members.flatten(), update.view(-1, columns))
    result = result.view(g.shape)
    return torch.addcmul(g, result, _bounded_gamma(gamma, sums.view(g.shape[:-1])), value=-1) if bounded else result


def _random_groups(g: Tensor, group_size: int, key: int | Tensor) -> list[Tensor]:
    """Partition the rows of each layer of `g` (..., N, D) at random into groups of about `group_size`.

    Group sizes differ by at most one row. Each tensor of the list, (groups, rows per group), holds positions among the
    rows of all layers (B * N) and is small enough for one batched product: its rows, and the pairs of each group.
    """
    n_rows, columns = g.shape[-2:]
    n_layers = g.numel() // (n_rows * columns)
    order = _random_order(key, n_layers, n_rows, g.device).view(n_layers, n_rows)
    n_groups = max(1, min((n_rows + group_size // 2) // group_size, n_rows // 2))  # no group of one row
    size, n_larger = divmod(n_rows, n_groups)
    cut = n_larger * (size + 1)
    chunk_bytes = max(_CPU_CHUNK_BYTES, g.numel() * g.element_size() // 64) if g.device.type == "cpu" else BLOCK_BYTES
    parts = [(order[:, :cut], size + 1)] if cut else []
    return [
        members
        for part, height in (*parts, (order[:, cut:], size))
        for members in torch.split(
            part.reshape(-1, height), max(1, chunk_bytes // (height * max(columns, height) * g.element_size()))
        )
    ]


def _random_order(key: int | Tensor, n_layers: int, n_rows: int, device: torch.device) -> Tensor:
    """Positions (B * N) among the rows of all layers, shuffled within each layer."""
    key = key.to(device)[:, None] if isinstance(key, Tensor) else key
    order = rng.bits(key, torch.arange(n_rows, device=device)).argsort(dim=-1, stable=True)  # (B or 1, N)
    return (order + n_rows * torch.arange(n_layers, device=device)[:, None]).flatten()


def _bounded_gamma(gamma: float | Tensor, sums: Tensor) -> Tensor:
    """gamma of the bounded form for each layer, (..., 1, 1), from the row sums (..., N) of |C|.

    A tensor rather than a number, so that no device is synchronized. If no row of a layer collides, it is `gamma`.
    """
    largest = BOUND / sums.amax(-1)[..., None, None]
    return largest.minimum(gamma.to(largest)) if isinstance(gamma, Tensor) else largest.clamp(max=gamma)
