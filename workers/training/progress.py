"""How far a run is: what it has used of its budget, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from service.specs.training import Budget


@dataclass
class Progress:
    """What a run has used of its budget, in the budget's own unit: optimizer steps, or seconds of training.

    The learning rate follows it, and it says when the run is over. Amounts stay in their unit instead of becoming
    shares, because 55 of 100 steps have to reach the milestone 0.55 * 100 exactly as they always did.
    """

    budget: float
    total_steps: int | None
    """Steps of the budget; None where it is in seconds."""
    warmup_steps: int = 0
    steps: int = 0
    """Optimizer steps done."""
    used: float = 0
    used_by_warmup: float = 0

    @classmethod
    def through(cls, budget: Budget, steps_per_epoch: int, warmup_steps: int) -> Self:
        """The progress, none so far, of a run through this budget."""
        if budget.seconds is not None:
            return cls(budget.seconds, None, warmup_steps)
        steps = budget.steps if budget.epochs is None else budget.epochs * steps_per_epoch
        assert steps is not None, "a budget has epochs, steps or seconds"
        return cls(steps, steps, warmup_steps)

    def count_step(self, seconds: float) -> None:
        """One more step is done, at so many seconds of training."""
        self.steps += 1
        self.used = seconds if self.total_steps is None else self.steps
        if self.steps <= self.warmup_steps:
            self.used_by_warmup = self.used

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self.used >= self.budget

    @property
    def share_after_warmup(self) -> float:
        """Used share of what the warm-up leaves of the budget, in [0, 1]; 1 where it leaves nothing."""
        left = self.budget - self.used_by_warmup
        return min(1.0, (self.used - self.used_by_warmup) / left) if left > 0 else 1.0


@dataclass
class Record:
    """What a run has found so far, besides weights."""

    records_seen: int = 0
    diagnostics_seconds: float = 0.0
    seen_at_validation: int = 0
    seconds_at_validation: float = 0.0
    validated_step: int = 0
    last: dict[str, float] = field(default_factory=dict)
    """The last value of each metric."""
    told: tuple[int, list[str]] = (0, [])
    """The step that was reported last, and the metrics that were reported of it."""
    best: tuple[float, int] | None = None
    """The selecting metric at the best validation, and its step."""
    hit: tuple[int, float] | None = None
    """Step and seconds at which the target was met."""

    def told_of(self, step: int) -> list[str]:
        """The metrics that were reported of a step that is not over."""
        return self.told[1] if self.told[0] == step else []
