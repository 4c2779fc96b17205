"""Collision strengths that change while training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Literal


@dataclass(frozen=True)
class Fade:
    """A strength that goes from `start` to `end` over `steps` steps and stays there.

    `KO(params, gamma=Fade(0.1, steps=total_steps))`. KO takes any function of the number of steps done; this one can be
    pickled and says what it is.

    Args:
        start: strength at the first step, >= 0.
        end: strength from step `steps` on, >= 0 (default 0).
        steps: length of the fading, >= 1.
        shape: "cosine" (default, half a period), "linear", or "step" (all at once at the end).

    Raises:
        ValueError: an argument out of its range, by name.
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
        """The strength after `step` steps."""
        done = min(step / self.steps, 1.0)
        return self.end + (self.start - self.end) * _SHAPES[self.shape](done)


_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "step": lambda done: float(done < 1),
}
