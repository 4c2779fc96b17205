"""How much memory a run takes, in bytes. Nothing here is called between its steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

_RESTART_PEAK = "5"  # Linux, Documentation/filesystems/proc.rst: "reset the peak resident set size"


def of(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors together."""
    return sum(tensor.nbytes for tensor in tensors)


def of_state(optimizer: Optimizer) -> int:
    """Bytes of all tensors that the optimizer keeps of its parameters."""
    return of(value for kept in optimizer.state.values() for value in kept.values() if isinstance(value, Tensor))


class Peak:
    """The most memory taken since this was made.

    On a GPU that is what torch had allocated there, including what it already had; on the CPU what the process's
    resident memory grew by, which the kernel keeps the peak of.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = 0
        self._earlier = 0
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # there are no statistics to reset before it
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = _restart_resident_peak()

    def was_before(self, peak_bytes: int | None) -> None:
        """The run had this peak in an earlier process."""
        self._earlier = peak_bytes or 0

    def bytes(self) -> int | None:
        """Bytes; None where the kernel does not tell."""
        if self._device.type == "cuda":
            return max(self._earlier, torch.cuda.max_memory_allocated(self._device))
        now = _resident_peak()
        if now is None or self._before is None:
            return None
        # The kernel counts pages in batches, so that a peak can seem to fall by some: never below 0.
        return max(self._earlier, now - self._before)


def _restart_resident_peak() -> int | None:
    """Let the peak be what is resident now, and give that; None where that is not allowed."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESTART_PEAK)
        return _resident_peak()
    return None


def _resident_peak() -> int | None:
    """The process's peak resident memory, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])  # in kB, which are KiB
    return None
