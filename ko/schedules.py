"""Schedules of the collision strengths `gamma` and `rate`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Literal


@dataclass(frozen=True)
class Fade:
    r"""Change a collision strength from `start` to `end` over `steps` steps, then keep it at `end`.

    After :math:`t` steps, with :math:`s = \min(t / \mathrm{steps}, 1)`, the strength is
    :math:`\mathrm{end} + (\mathrm{start} - \mathrm{end}) f(s)`, where :math:`f(s)` is :math:`(1 + \cos \pi s) / 2`
    ("cosine"), :math:`1 - s` ("linear"), or 1 before the last step and 0 from then on ("step").

    Example: `KO(params, gamma=Fade(0.1, steps=total_steps))`. KO accepts any function of the number of completed steps;
    a Fade can also be pickled and has a readable `repr`.

    Args:
        start: strength at the first step, >= 0.
        end: strength from step `steps` on, >= 0 (default 0).
        steps: length of the schedule in optimizer steps, >= 1.
        shape: "cosine" (default), "linear" or "step".

    Raises:
        ValueError: if an argument is out of range; the message names it.
    """

    start: float
    end: float = 0.0
    _: KW_ONLY
    steps: int
    shape: Literal["cosine", "linear", "step"] = "cosine"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, not {value!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps: expected an integer >= 1, not {self.steps!r}")
        if self.shape not in _SHAPES:
            raise ValueError(f"shape: {self.shape!r} is not one of {', '.join(_SHAPES)}")

    def __call__(self, step: int) -> float:
        """The strength after `step` completed steps."""
        progress = min(step / self.steps, 1.0)
        return self.end + (self.start - self.end) * _SHAPES[self.shape](progress)


_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "step": lambda progress: float(progress < 1),
}
