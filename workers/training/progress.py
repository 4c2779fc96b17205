"""Progress of a run: the used part of its budget, and its results so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from service.specs.training import Budget

MIN_VALIDATIONS = 10
"""Validations of a run, if it has as many steps, its budget is not in seconds and its spec gives no interval."""


@dataclass
class Progress:
    """The used part of a run's budget, in the unit of the budget: optimizer steps, or seconds of training.

    It determines the learning rate and the end of the run. Amounts are not converted to fractions: 55 of 100 steps must
    reach the milestone 0.55 * 100 exactly. Checkpoints store the fields under their names.
    """

    budget: float
    total_steps: int | None
    """Steps of the budget; None for a budget in seconds."""
    warmup_steps: int = 0
    steps: int = 0
    """Optimizer steps done."""
    used: float = 0
    used_by_warmup: float = 0

    @classmethod
    def from_budget(cls, budget: Budget, steps_per_epoch: int, warmup_steps: int) -> Self:
        """The progress of a run with this budget before its first step."""
        if budget.seconds is not None:
            return cls(budget.seconds, None, warmup_steps)
        steps = budget.steps if budget.epochs is None else budget.epochs * steps_per_epoch
        assert steps is not None, "a budget has epochs, steps or seconds"
        return cls(steps, steps, warmup_steps)

    def count_step(self, seconds: float) -> None:
        """Count a step, done after `seconds` of training."""
        self.steps += 1
        self.used = seconds if self.total_steps is None else self.steps
        if self.steps <= self.warmup_steps:
            self.used_by_warmup = self.used

    def steps_between_validations(self, steps_per_epoch: int) -> int:
        """An epoch, or less for a run of fewer than `MIN_VALIDATIONS` epochs, so that its curves have enough points."""
        if self.total_steps is None:
            return steps_per_epoch
        return min(steps_per_epoch, max(1, self.total_steps // MIN_VALIDATIONS))

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self.used >= self.budget

    @property
    def share_after_warmup(self) -> float:
        """Used share of the budget after the warm-up, in [0, 1]; 1 if the warm-up takes all of the budget."""
        left = self.budget - self.used_by_warmup
        return min(1.0, (self.used - self.used_by_warmup) / left) if left > 0 else 1.0


@dataclass
class Record:
    """Results of a run so far, except weights."""

    records_seen: int = 0
    diagnostics_seconds: float = 0.0
    seen_at_validation: int = 0
    seconds_at_validation: float = 0.0
    validated_step: int = 0
    last: dict[str, float] = field(default_factory=dict)
    """The last value of each metric."""
    reported: tuple[int, list[str]] = (0, [])
    """The last step for which metrics were reported, and their names."""
    best: tuple[float, int] | None = None
    """Value of the selection metric at the best validation, and its step."""
    hit: tuple[int, float] | None = None
    """Step and seconds at which the target was reached."""

    def reported_at(self, step: int) -> list[str]:
        """The metrics that were reported for this step, the current one."""
        return self.reported[1] if self.reported[0] == step else []

    def state_dict(self) -> dict[str, Any]:
        """The fields as stored in checkpoints, where the key of `reported` is `told`."""
        state = asdict(self)
        state["told"] = state.pop("reported")
        return state

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """The record of a checkpoint."""
        values = dict(state)
        values["reported"] = values.pop("told")
        return cls(**values)
