"""The plan of a comparison: fixed before the first job, and stored.

A plan answers which runs there are (`Cell`) and what each trains (`Plan.spec`); in which order they are wanted is
`service.comparisons.design.schedule`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from service.comparisons.design.requests import Endpoint, Tuning
from service.comparisons.design.search_spaces import Space
from service.specs.catalog.datasets import dataset_class
from service.specs.training import TrainSpec

LARGEST = 1e100
"""Absolute value of a score, so that squares and sums can be computed with."""


class Cell(NamedTuple):
    """One run: `trial` indexes the optimizer's points, `rung` the budgets of successive halving (0 where unused)."""

    phase: Literal["tuning", "report"]
    task: int
    optimizer: int
    trial: int
    rung: int
    seed: int


class PlannedTask(BaseModel):
    """A task as it is trained: `spec` is a TrainSpec without optimizer and seed."""

    model_config = ConfigDict(frozen=True)

    label: str
    spec: dict[str, Any]
    diverged_score: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | None
    """Plans were once stored without a bound, and sums of such scores overflow."""


class PlannedOptimizer(BaseModel):
    """An optimizer and the points it is tried at, every parameter explicit; one point: nothing to choose."""

    model_config = ConfigDict(frozen=True)

    label: str
    name: str
    space: Space | None
    trials: list[dict[str, Any]]

    @property
    def is_tuned(self) -> bool:
        """Whether one of several points is chosen."""
        return self.space is not None


class Rung(BaseModel):
    """A stage of successive halving: how many trials reach it, and their share of the budget."""

    model_config = ConfigDict(frozen=True)

    trials: int
    share: float


class Plan(BaseModel):
    """All that will be run and how it will be judged."""

    model_config = ConfigDict(frozen=True)

    name: str
    metric: Endpoint
    tasks: list[PlannedTask]
    optimizers: list[PlannedOptimizer]
    seeds: list[int]
    looks: list[int]
    """Numbers of seeds after which is looked; the last is all of them."""
    stopping: Literal["fixed", "looks", "any"]
    tuning: Tuning | None
    rungs: list[Rung]
    vary: list[str]
    reuse: bool
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    max_failures: int

    @property
    def pairs(self) -> int:
        """Pairs of optimizers over all tasks: the family that the error rate holds for."""
        k = len(self.optimizers)
        return len(self.tasks) * k * (k - 1) // 2

    @property
    def tuning_seeds(self) -> list[int]:
        """The seeds of every trial."""
        return (
            []
            if self.tuning is None
            else list(range(self.tuning.first_seed, self.tuning.first_seed + self.tuning.seeds))
        )

    def jobs(self, *, seeds: int | None = None) -> int:
        """Number of runs with so many seeds reported, by default the most there can be."""
        reported = len(self.optimizers) * (len(self.seeds) if seeds is None else seeds)
        tried = sum(self._trials_run(one) for one in self.optimizers if one.is_tuned) * len(self.tuning_seeds)
        return len(self.tasks) * (reported + tried)

    def _trials_run(self, optimizer: PlannedOptimizer) -> int:
        return sum(min(rung.trials, len(optimizer.trials)) for rung in self.rungs)

    def spec(self, cell: Cell) -> dict[str, Any]:
        """What a cell trains, as a resolved spec."""
        task, optimizer = self.tasks[cell.task], self.optimizers[cell.optimizer]
        spec = {
            **task.spec,
            "optimizer": {"name": optimizer.name, "params": optimizer.trials[cell.trial]},
            "seed": cell.seed,
            "evaluate_test": cell.phase == "report",
            "stop_at_target": False,
        }
        if cell.phase == "tuning":
            spec["budget"] = scaled(task.spec["budget"], self.rungs[cell.rung].share)
        if "split" in self.vary and self.resplits(cell.task) != "nothing":
            dataset = spec["dataset"]
            spec["dataset"] = {**dataset, "params": {**dataset["params"], "split_seed": cell.seed}}
        return TrainSpec.model_validate(spec).model_dump(mode="json")

    def resplits(self, task: int) -> Literal["all", "validation", "nothing"]:
        """What another split of a task's data draws anew."""
        dataset = self.tasks[task].spec["dataset"]
        return dataset_class(dataset["name"]).model_validate(dataset).resplits

    def is_reusable(self, cell: Cell) -> bool:
        """Whether another run of the same spec is taken."""
        return self.reuses(cell.task)

    def reuses(self, task: int) -> bool:
        """Whether another run of the same spec says the same: times depend on what else was running."""
        is_timed = self.tasks[task].spec["budget"].get("seconds") is not None or self.metric.endswith("per_second")
        return self.reuse and not is_timed


def scaled(budget: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A share of a budget, in the same unit."""
    return {
        unit: None if amount is None else amount * share if unit == "seconds" else max(1, round(amount * share))
        for unit, amount in budget.items()
    }
