"""Parameters that live on several processes, and what their processes have to agree on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def shared_seed() -> int:
    """torch's initial seed; where a process group is up, that of rank 0 for all, so that replicas collide alike."""
    seed = torch.initial_seed()
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return seed
    seeds = [seed]
    dist.broadcast_object_list(seeds, src=0)
    return seeds[0]


def is_flattened(tensor: Tensor) -> bool:
    """Whether the first FSDP has laid the parameter out as one vector, in which no neuron can be found again."""
    return getattr(tensor, "_is_flat_param", False) or getattr(tensor, "_fsdp_flattened", False)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of the tensor alone (DTensor: FSDP2, tensor parallelism)."""
    return isinstance(tensor, DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor on every process; a collective call if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(whole: Tensor, like: Tensor) -> Tensor:
    """The whole tensor, equal on all processes, sharded as `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, like.placements)
