"""Memory use of a run, in bytes. None of these functions is called between training steps."""

from __future__ import annotations

import contextlib
import resource
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_STACK_BYTES = 8 * 2**20
"""Address space of a thread's stack, of which it touches a few pages."""
_NEAR_BYTES = 16 * 2**20
"""Below this distance from the limit, no thread starts, and libraries fail with errors of their own."""
_RESET_PEAK = "5"  # Linux, Documentation/filesystems/proc.rst: "reset the peak resident set size"


def of(tensors: Iterable[Tensor]) -> int:
    """Total size of these tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def of_state(optimizer: Optimizer) -> int:
    """Total size of all tensors in the state of an optimizer, and of those that it wraps."""
    state = {name: part for name, part in optimizer.state_dict().items() if name != "param_groups"}
    return of({id(tensor): tensor for tensor in _tensors_in(state)}.values())


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors_in(inner)
    elif isinstance(value, list | tuple | deque | set):
        for inner in value:
            yield from _tensors_in(inner)


class Peak:
    """Peak memory use since the construction of this object.

    On a GPU: memory allocated by torch, including earlier allocations. On the CPU: growth of the process's resident
    memory, whose peak the kernel records.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._baseline: int | None = 0
        self._earlier = 0
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # before it, there are no statistics to reset
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._baseline = _reset_resident_peak()

    def add_earlier(self, peak_bytes: int | None) -> None:
        """Include the peak of an earlier process of the run."""
        self._earlier = peak_bytes or 0

    def bytes(self) -> int | None:
        """The peak; None if the kernel does not report it."""
        if self._device.type == "cuda":
            return max(self._earlier, torch.cuda.max_memory_allocated(self._device))
        peak = _resident_peak()
        if peak is None or self._baseline is None:
            return None
        # Never below 0, although the kernel counts pages in batches, so that the peak can appear to fall slightly.
        return max(self._earlier, peak - self._baseline)


def _reset_resident_peak() -> int | None:
    """Reset the peak to the current resident memory and return it; None if that is not permitted."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        return _resident_peak()
    return None


class Limit:
    """A limit of the memory that this process allocates from now on; the kernel refuses more.

    Memory that the process has already does not count: the libraries and the training engine, some 900 MiB, whose size
    depends on the build of torch, and most of which all processes of a worker share. Nor do the stacks of the threads
    that OpenMP starts later.

    Args:
        limit_bytes: the limit.
        threads: CPU threads of the run.
    """

    def __init__(self, limit_bytes: int, threads: int) -> None:
        self.bytes = limit_bytes
        self._baseline = _writable()
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        self._limit = self._baseline + limit_bytes + (threads - 1) * _STACK_BYTES
        if (hard := self._before[1]) != resource.RLIM_INFINITY:
            self._limit = min(self._limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (self._limit, hard))

    def used(self) -> int:
        """Bytes allocated since the limit was set."""
        return max(0, _writable() - self._baseline)

    def is_near(self) -> bool:
        """Whether so little memory is left that any error may be due to it."""
        return _writable() > self._limit - _NEAR_BYTES

    def lift(self) -> None:
        """Remove the limit, for a process that reports its end."""
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


def _writable() -> int:
    """Private writable memory of the process, touched or not, which `RLIMIT_DATA` limits; 0 if unknown."""
    return _status("VmData") or 0


def resident() -> int:
    """Resident memory of the process, in bytes; 0 if the kernel does not report it."""
    return _status("VmRSS") or 0


def _resident_peak() -> int | None:
    """Peak resident memory of the process, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    """A size from the status of the process, in bytes; None if the kernel does not report it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])  # "kB" in this file means KiB
    return None
