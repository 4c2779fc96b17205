"""The plan of a comparison, which is fixed and stored before the first job.

A plan defines the runs (`Cell`) and their specs (`Plan.spec`); `service.comparisons.design.schedule` decides which of
them are due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from service.comparisons.design.requests import Endpoint, Tuning
from service.specs.catalog.datasets import dataset_class
from service.specs.metric_text import Measure
from service.specs.search_space import Space
from service.specs.training import TrainSpec

LARGEST = 1e100
"""Maximum absolute value of a score, so that squares and sums do not overflow."""


class Cell(NamedTuple):
    """One run: `trial` indexes the optimizer's points, `rung` the budgets of successive halving (0 if unused)."""

    phase: Literal["tuning", "report"]
    task: int
    optimizer: int
    trial: int
    rung: int
    seed: int


class PlannedTask(BaseModel):
    """A task; `spec` is a TrainSpec without optimizer and seed."""

    model_config = ConfigDict(frozen=True)

    label: str
    spec: dict[str, Any]
    diverged_score: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | None
    """Bounded here, too, because stored plans of old versions contain scores whose sums overflow."""


class PlannedOptimizer(BaseModel):
    """An optimizer and its trials, with every parameter explicit; a single trial if it is not tuned."""

    model_config = ConfigDict(frozen=True)

    label: str
    name: str
    space: Space | None
    trials: list[dict[str, Any]]

    @property
    def is_tuned(self) -> bool:
        """Whether its parameters are chosen from a search space."""
        return self.space is not None

    def tuned(self, trial: int) -> dict[str, Any]:
        """The tuned parameters of a trial."""
        return {name: self.trials[trial][name] for name in self.space or {}}

    def tuned_numbers(self) -> Iterator[tuple[str, set[float]]]:
        """The tuned parameters that are numbers, with their distinct values over all trials."""
        for name in self.space or {}:
            values = [trial[name] for trial in self.trials]
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                yield name, set(values)


class Rung(BaseModel):
    """A stage of successive halving: the number of trials that reach it, and their share of the budget."""

    model_config = ConfigDict(frozen=True)

    trials: int
    share: float


class Plan(BaseModel):
    """All runs, and how they are tested."""

    model_config = ConfigDict(frozen=True)

    name: str
    metric: Endpoint
    tasks: list[PlannedTask]
    optimizers: list[PlannedOptimizer]
    seeds: list[int]
    looks: list[int]
    """Numbers of seeds at which results are tested; the last is all of them."""
    stopping: Literal["fixed", "looks", "any"]
    tuning: Tuning | None
    rungs: list[Rung]
    vary: list[str]
    reuse: bool
    tags: dict[str, str]
    priority: int
    time_limit_seconds: float | None
    max_failures: int
    warnings: list[str] = []
    """Sentences on what the author of the request probably did not mean; empty in plans of old versions."""

    @property
    def pairs(self) -> int:
        """Number of pairs of optimizers over all tasks: the family of tests whose error rate is controlled."""
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
        """Number of runs if `seeds` seeds are reported; by default all, the maximum."""
        reported = len(self.optimizers) * (len(self.seeds) if seeds is None else seeds)
        tried = sum(self._trials_run(optimizer) for optimizer in self.optimizers if optimizer.is_tuned)
        return len(self.tasks) * (reported + tried * len(self.tuning_seeds))

    def _trials_run(self, optimizer: PlannedOptimizer) -> int:
        return sum(min(rung.trials, len(optimizer.trials)) for rung in self.rungs)

    def spec(self, cell: Cell) -> dict[str, Any]:
        """The resolved spec of a cell."""
        (spec,) = self.specs([cell])
        return spec

    def specs(self, cells: Iterable[Cell]) -> Iterator[dict[str, Any]]:
        """The resolved specs of cells. Those that differ only in their seed are validated once."""
        resolved: dict[Cell, dict[str, Any]] = {}
        for cell in cells:
            key = cell._replace(seed=0)
            spec = resolved[key] if key in resolved else resolved.setdefault(key, self._spec(key))
            spec = {**spec, "seed": cell.seed}
            if "split" in self.vary and self.resplits(cell.task) != "nothing":
                dataset = spec["dataset"]
                spec["dataset"] = {**dataset, "params": {**dataset["params"], "split_seed": cell.seed}}
            yield spec

    def _spec(self, cell: Cell) -> dict[str, Any]:
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
        return TrainSpec.model_validate(spec).model_dump(mode="json")

    def resplits(self, task: int) -> Literal["all", "validation", "nothing"]:
        """The parts of a task's data that change with the split seed."""
        dataset = self.tasks[task].spec["dataset"]
        return dataset_class(dataset["name"]).model_validate(dataset).resplits

    @property
    def validation_metric(self) -> str:
        """The metric that ranks trials: the endpoint's counterpart on validation data."""
        return "val_loss" if self.metric.endswith("loss") else "val_accuracy"

    def is_timed(self, task: int) -> bool:
        """Whether the result of a run depends on the speed of its device."""
        return self.tasks[task].spec["budget"].get("seconds") is not None or Measure(self.metric).is_speed

    def reuses(self, task: int) -> bool:
        """Whether existing identical runs are used instead of new ones."""
        return self.reuse and not self.is_timed(task)


def scaled(budget: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A share of a budget, in the same unit."""
    return {
        unit: None if amount is None else amount * share if unit == "seconds" else max(1, round(amount * share))
        for unit, amount in budget.items()
    }
