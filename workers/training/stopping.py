"""Ends of a run before its budget is used up."""

from __future__ import annotations

import math
from enum import Enum, auto

import torch
from torch import Tensor

from service.specs.states import Reason

# On a GPU, checks of the loss are rare, because each waits for the device.
_STEPS_BETWEEN_CHECKS = 50


class Stop(Enum):
    """Request to a running run: end for good (CANCEL), or write a checkpoint and end, to be continued later (PAUSE)."""

    CANCEL = auto()
    PAUSE = auto()


class Ended(Exception):
    """The run ends before its budget is used up."""

    def __init__(self, reason: Reason, message: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class LossMonitor:
    """Ends the run if a training loss is not finite.

    On a GPU the check is delayed by up to `every_steps` steps; the message names the step of the loss.
    """

    def __init__(self, device: torch.device, every_steps: int) -> None:
        self._is_immediate = device.type == "cpu"
        self._every_steps = min(every_steps, _STEPS_BETWEEN_CHECKS)
        self._unchecked: list[tuple[int, Tensor]] = []
        """Steps and their losses."""

    def add(self, loss: Tensor, step: int) -> None:
        """Add the loss of a step, a scalar. Raises `Ended` as `check`."""
        if self._is_immediate:
            _require_finite(loss.item(), step)
            return
        self._unchecked.append((step, loss))
        if len(self._unchecked) >= self._every_steps:
            self.check()

    def check(self) -> None:
        """Check the losses since the last check. Raises `Ended` if one is not finite."""
        if not self._unchecked:
            return
        steps, losses = zip(*self._unchecked, strict=True)
        self._unchecked = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            _require_finite(loss, step)


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise Ended(Reason.DIVERGED, f"the training loss was {loss} at step {step}")
