"""Soft collisions: rows alike in weight and in gradient repel. Source: arXiv 2505.14777; the rest is said below."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ko import counter
from ko.collisions.rows import block_rows, computable, gram_dtype, inverse, lengths, scaled

BOUND = 0.95
"""The bounded form keeps gamma times an upper bound of the largest eigenvalue of C below 1, with this much to spare."""

BLOCK_BYTES = 64 * 2**20
"""C is never whole in memory where it would be larger than this: it is computed a block of rows at a time."""

# On a CPU the cosines of so many rows are computed at once: what is left of the diagonal is known by symmetry, and the
# product of the two cosines happens in the cache (512 rows of 4,608 columns: 8.1 ms, in one piece 11.4 ms; 64 and 256
# rows at once take 8.7 and 9.0 ms).
_CPU_STRIP_ROWS = 128

# On a CPU random groups are computed so many bytes of rows at a time, in at most 64 parts.
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
    """Let rows that are alike in weight and in gradient repel: `g - gamma * C g`.

    C_ij = cos(w_i, w_j) * cos(g_i, g_j), the diagonal included. A zero row has cosine 0 with every row. A row with a
    NaN or an infinity is left out of C and its gradient passes through unchanged.

    Costs 6 N^2 D flops and no more than `BLOCK_BYTES` for C at a time; with `group_size`, 6 N D group_size flops. The
    product C g is computed as `torch.set_float32_matmul_precision` says: in float32 unless that is "medium".

    Args:
        weights: (N, D), or (B, N, D) for B layers that do not meet.
        gradients: the same shape.
        gamma: strength, >= 0; a float or a 0-d tensor.
        bounded: use min(gamma, 0.95 / max_i sum_j |C_ij|), with which the result stays a descent direction.
        group_size: sum only inside random groups of about this many rows (random batch method, Jin, Li and Liu 2020).
            With N rows and a group of p, C off its diagonal is multiplied by (N - 1) / (p - 1), which makes the sum
            unbiased in the unbounded form. None: all rows meet.
        key: decides the groups (see `ko.counter.key`); one for each layer, as (B,) int64, if there are several.
        gram: dtype of the cosines; None: `gram_dtype` of the gradients.

    Returns:
        The gradients after the collision, of their shape and dtype, a new tensor.
    """
    w, g = computable(weights), computable(gradients)
    if group_size is None or group_size >= g.shape[-2]:
        return _all_meet(_layer(w, g, gram), g, gamma, bounded).to(gradients.dtype)
    return _groups_meet(w, g, gamma, bounded, group_size, key, gram).to(gradients.dtype)


class _Rows(NamedTuple):
    """What is needed of them, (..., N, D) each: directions (zero for rows that have none) and velocities."""

    w_unit: Tensor
    g_unit: Tensor
    velocities: Tensor  # the gradients, zero for rows that are not finite
    finite: Tensor  # (..., N, 1) bool
    has_direction: Tensor  # (..., N) bool: the diagonal of C


def _layer(w: Tensor, g: Tensor, gram: torch.dtype | None) -> _Rows:
    gram = gram_dtype(g) if gram is None else gram
    w_lengths, g_lengths = lengths(w), lengths(g)  # (..., N, 1)
    finite = w_lengths.isfinite() & g_lengths.isfinite()
    w_inverse, g_inverse = inverse(w_lengths, finite), inverse(g_lengths, finite)
    clean = _surely(finite)
    return _Rows(
        scaled(w, w_inverse, gram, clean=clean),
        scaled(g, g_inverse, gram, clean=clean),
        g if clean else scaled(g, finite),
        finite,
        ((w_inverse > 0) & (g_inverse > 0)).squeeze(-1),
    )


def _surely(flags: Tensor) -> bool:
    """Whether all flags are set, where asking is free: a GPU or a compiled graph is not made to wait for the answer."""
    return flags.device.type == "cpu" and not torch.compiler.is_compiling() and bool(flags.all())


def _cosines(layer: _Rows, rows: slice, columns: slice) -> Tensor:
    """A block of C, (..., rows, columns); the two cosines are multiplied in the velocities' precision."""
    alike = layer.w_unit[..., rows, :] @ layer.w_unit[..., columns, :].mT
    return alike.to(layer.velocities.dtype).mul_(layer.g_unit[..., rows, :] @ layer.g_unit[..., columns, :].mT)


def _block(layer: _Rows, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of C from the diagonal on, (..., stop - start, N - start)."""
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


def _all_meet(layer: _Rows, g: Tensor, gamma: float | Tensor, bounded: bool) -> Tensor:
    """`g - gamma * C g` with all of C in memory, or a block of it at a time where it is too large."""
    if g.shape[-2] > block_rows(g, BLOCK_BYTES):
        return _all_meet_in_blocks(layer, g, gamma, bounded)
    c = _block(layer, 0, g.shape[-2])
    strength = _strength(gamma, torch.linalg.vector_norm(c, ord=1, dim=-1)) if bounded else gamma
    diagonal = c.diagonal(dim1=-2, dim2=-1)
    if layer.w_unit.dtype != g.dtype and torch.get_float32_matmul_precision() == "medium":
        # torch's own switch says that float32 products may be computed in bfloat16. The diagonal stays out of it.
        diagonal.zero_()
        pull = (c.mul_(strength)).bfloat16() @ layer.velocities.bfloat16()
        return (g * (1 - layer.has_direction[..., None] * strength)).sub_(pull)
    c.mul_(-strength)
    diagonal.add_(1)
    result = c @ layer.velocities
    return result if layer.velocities is g else torch.where(layer.finite, result, g)


def _all_meet_in_blocks(layer: _Rows, g: Tensor, gamma: float | Tensor, bounded: bool) -> Tensor:
    """A block of rows of C at a time, and of those, C being symmetric, no column left of the diagonal."""
    n_rows, v, height = g.shape[-2], layer.velocities, block_rows(g, BLOCK_BYTES)
    pull = torch.zeros_like(g)
    sums = g.new_zeros(g.shape[:-1])  # of |C_ij| over j
    for start in range(0, n_rows, height):
        stop = min(start + height, n_rows)
        block = _block(layer, start, stop)
        right = block[..., stop - start :]  # its mirror image is the part of C below the block
        if bounded:
            sums[..., start:stop] += torch.linalg.vector_norm(block, ord=1, dim=-1)
            sums[..., stop:] += torch.linalg.vector_norm(right, ord=1, dim=-2)
        _add_product(pull[..., start:stop, :], block, v[..., start:, :])
        if stop < n_rows:
            _add_product(pull[..., stop:, :], right.mT, v[..., start:stop, :])
    return g - pull.mul_(_strength(gamma, sums) if bounded else gamma)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.ndim == 2:  # a product of single matrices takes them as they lie, a batched one copies some
        total.addmm_(a, b)
    else:
        total.baddbmm_(a, b)


def _groups_meet(
    w: Tensor,
    g: Tensor,
    gamma: float | Tensor,
    bounded: bool,
    group_size: int,
    key: int | Tensor,
    gram: torch.dtype | None,
) -> Tensor:
    """The same sum estimated inside random groups whose sizes differ by at most one."""
    n_rows, columns = g.shape[-2:]
    w_rows, g_rows = w.reshape(-1, columns), g.reshape(-1, columns)  # (B * N, D)
    result = torch.empty_like(g_rows)
    sums = g.new_empty(len(g_rows))  # of |C_ij| over j
    for members in _groups(g, group_size, key):
        w_groups, g_groups = (
            rows.index_select(0, members.flatten()).view(*members.shape, columns) for rows in (w_rows, g_rows)
        )
        groups = _layer(w_groups, g_groups, gram)
        c = _cosines(groups, slice(None), slice(None)).mul_((n_rows - 1) / (members.shape[1] - 1))
        c.diagonal(dim1=1, dim2=2).copy_(groups.has_direction)  # the diagonal needs no estimate
        if bounded:
            sums.index_copy_(0, members.flatten(), torch.linalg.vector_norm(c, ord=1, dim=-1).flatten())
            pull = c @ groups.velocities
        else:
            pull = torch.baddbmm(g_groups, c.mul_(-gamma), groups.velocities)
        result.index_copy_(0, members.flatten(), pull.view(-1, columns))
    result = result.view(g.shape)
    return torch.addcmul(g, result, _strength(gamma, sums.view(g.shape[:-1])), value=-1) if bounded else result


def _groups(g: Tensor, group_size: int, key: int | Tensor) -> list[Tensor]:
    """Positions of rows, (groups, rows in each), among those of all layers: every row once, in groups of its layer.

    Groups differ by one row at most. As many come at a time as are worth one batched product.
    """
    n_rows, columns = g.shape[-2:]
    n_layers = g.numel() // (n_rows * columns)
    order = _random_order(key, n_layers, n_rows, g.device).view(n_layers, n_rows)
    n_groups = max(1, min((n_rows + group_size // 2) // group_size, n_rows // 2))  # nobody is alone
    size, n_larger = divmod(n_rows, n_groups)
    cut = n_larger * (size + 1)
    chunk_bytes = max(_CPU_CHUNK_BYTES, g.numel() * g.element_size() // 64) if g.device.type == "cpu" else BLOCK_BYTES
    parts = [(order[:, :cut], size + 1)] if cut else []
    return [
        members
        for part, height in (*parts, (order[:, cut:], size))
        for members in torch.split(
            part.reshape(-1, height), max(1, chunk_bytes // (height * columns * g.element_size()))
        )
    ]


def _random_order(key: int | Tensor, n_layers: int, n_rows: int, device: torch.device) -> Tensor:
    """Positions (B * N) among the rows of all layers, shuffled inside each."""
    key = key.to(device)[:, None] if isinstance(key, Tensor) else key
    order = counter.bits(key, torch.arange(n_rows, device=device)).argsort(dim=-1, stable=True)  # (B or 1, N)
    return (order + n_rows * torch.arange(n_layers, device=device)[:, None]).flatten()


def _strength(gamma: float | Tensor, sums: Tensor) -> Tensor:
    """The bounded form's gamma of each layer, (..., 1, 1), from the row sums (..., N) of |C|.

    A tensor and not a number, so that no device has to be waited for; without any colliding row it is gamma.
    """
    largest = BOUND / sums.amax(-1)[..., None, None]
    return largest.minimum(gamma.to(largest)) if isinstance(gamma, Tensor) else largest.clamp(max=gamma)
