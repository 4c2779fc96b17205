"""How a run ends before its budget is used up."""

from __future__ import annotations

import math
from enum import Enum, auto

import torch
from torch import Tensor

from service.specs.states import Reason

# On a GPU the loss is looked at only so often: every look waits for the device.
_STEPS_BETWEEN_LOOKS = 50


class Stop(Enum):
    """What a run is told from outside: to end for good, or to write a checkpoint and end, because it will go on."""

    CANCEL = auto()
    PAUSE = auto()


class Ended(Exception):
    """The run is over, before its budget is."""

    def __init__(self, reason: Reason, message: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Losses:
    """Ends the run at a training loss that is not finite; on a GPU, up to `every_steps` later, but naming the step."""

    def __init__(self, device: torch.device, every_steps: int) -> None:
        self._at_once = device.type == "cpu"
        self._every_steps = min(every_steps, _STEPS_BETWEEN_LOOKS)
        self._gathered: list[tuple[int, Tensor]] = []  # by step, not looked at yet

    def add(self, loss: Tensor, step: int) -> None:
        """Take the loss of a step, a scalar."""
        if self._at_once:
            _check(loss.item(), step)
            return
        self._gathered.append((step, loss))
        if len(self._gathered) >= self._every_steps:
            self.look()

    def look(self) -> None:
        """Look at the losses since the last look, if there are any."""
        if not self._gathered:
            return
        steps, losses = zip(*self._gathered, strict=True)
        self._gathered = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            _check(loss, step)


def _check(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise Ended(Reason.DIVERGED, f"the training loss was {loss} at step {step}")
