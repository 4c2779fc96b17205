"""Distributed training: the seed that all processes share, and parameters that are sharded over processes."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def seed_of_first_rank(seed: int) -> int:
    """The seed of rank 0, so that replicas draw the same numbers.

    A collective call if a process group is initialized.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return seed
    seeds = [seed]
    dist.broadcast_object_list(seeds, src=0)
    return seeds[0]


def is_flattened(tensor: Tensor) -> bool:
    """Whether FullyShardedDataParallel (FSDP1) has flattened the parameter, which makes its rows unrecoverable."""
    return getattr(tensor, "_is_flat_param", False) or getattr(tensor, "_fsdp_flattened", False)


def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is a DTensor (FSDP2, tensor parallelism), of which this process may hold only a part."""
    return isinstance(tensor, DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """The full tensor on every process; a collective call if it is a DTensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(full: Tensor, like: Tensor) -> Tensor:
    """Shard `full`, which is equal on all processes, as `like` is sharded; no communication."""
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    replicated = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(mesh, like.placements)
