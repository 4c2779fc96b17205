"""The time that training takes, without what is measured beside it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class Clock:
    """Seconds spent on training steps; paused while evaluating.

    Args:
        gathered: seconds of the run so far, where it continues another process's.
    """

    def __init__(self, device: torch.device, gathered: float = 0.0) -> None:
        self._device = device
        self._gathered = gathered
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self._gathered + (0.0 if self._since is None else self._now() - self._since)

    @property
    def seconds_without_waiting(self) -> float:
        """Seconds until now, as the CPU sees it: a GPU may still work on steps that it has been handed.

        Waiting for it after every step would slow training down. The CPU cannot be further ahead than the last look
        at the losses, some dozens of steps, and `seconds` counts their time in the end.
        """
        return self._gathered + (0.0 if self._since is None else time.perf_counter() - self._since)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs inside."""
        self._since = self._now()
        try:
            yield
        finally:
            self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside."""
        self._stop()
        try:
            yield
        finally:
            self._since = self._now()

    def _stop(self) -> None:
        if self._since is not None:
            self._gathered += self._now() - self._since
            self._since = None

    def _now(self) -> float:
        """The time at which the device has done all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
