"""Memory use of a run, in bytes. None of these functions is called between training steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

_RESET_PEAK = "5"  # Linux, Documentation/filesystems/proc.rst: "reset the peak resident set size"


def of(tensors: Iterable[Tensor]) -> int:
    """Total size of these tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def of_state(optimizer: Optimizer) -> int:
    """Total size of all tensors in the state of an optimizer."""
    return of(value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))


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


def _resident_peak() -> int | None:
    """Peak resident memory of the process, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])  # "kB" in this file means KiB
    return None
