"""Training time, without evaluation and diagnostics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class Clock:
    """Seconds spent on training steps; paused during evaluation.

    Args:
        device: device of the run; on a GPU, reading the clock waits for submitted work.
        elapsed: seconds spent by earlier processes of the run (default 0).
    """

    def __init__(self, device: torch.device, elapsed: float = 0.0) -> None:
        self._device = device
        self._elapsed = elapsed
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._elapsed + (0.0 if self._since is None else self._now() - self._since)

    @property
    def seconds_without_waiting(self) -> float:
        """Seconds so far, without waiting for a GPU that still works on submitted steps.

        Waiting after every step would slow down training. The CPU is ahead by at most the steps since the last check of
        the losses, a few dozen, and `seconds` counts their time eventually.
        """
        return self._elapsed + (0.0 if self._since is None else time.perf_counter() - self._since)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the clock inside the block."""
        self._since = self._now()
        try:
            yield
        finally:
            self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the block."""
        self._stop()
        try:
            yield
        finally:
            self._since = self._now()

    def _stop(self) -> None:
        if self._since is not None:
            self._elapsed += self._now() - self._since
            self._since = None

    def _now(self) -> float:
        """The time after the device has finished all submitted work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
