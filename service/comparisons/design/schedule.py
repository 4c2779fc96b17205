"""Which runs of a comparison are due, and which trial of each optimizer is reported. Pure: plan and results in.

Each optimizer is tuned first, independently of the others. Its chosen trial then runs on the reported seeds up to the
first look. Later seeds run only while the task is undecided, and only for optimizers that are not significantly behind
another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from service.comparisons.design.plan import Cell, Plan
from service.comparisons.design.results import Result
from service.specs.metric_text import sign
from service.specs.states import JobStatus
from service.stats.multiple_testing import Family, TaskScores, Values, unbeaten

TrialScore = tuple[float, ...]
"""Sort key of a trial; the largest is best. The loss breaks ties in accuracy, frequent on small validation sets. Empty
for a trial without a result."""

Results = Mapping[Cell, Result]


def due(plan: Plan, results: Results) -> list[Cell]:
    """All cells that are due, including those with a result."""
    return [cell for task in range(len(plan.tasks)) for cell in TaskResults(plan, results, task).due]


def family(plan: Plan) -> Family:
    """The family of tests of a plan."""
    return Family(
        pairs=plan.pairs,
        looks=tuple(plan.looks),
        stopping=plan.stopping,
        seeds=tuple(plan.seeds),
        sign=sign(plan.metric),
    )


@dataclass
class Reporting:
    """The final runs of a task that are due: up to the first look that is incomplete or decides the task."""

    cells: list[Cell] = field(default_factory=list)
    looks_done: list[int] = field(default_factory=list)
    """By optimizer: number of looks for which all of its runs have ended; no more once it is significantly behind."""
    is_complete: bool = False
    """Whether the task needs no further run."""


@dataclass(frozen=True)
class TaskResults:
    """The results of one task so far, and the runs that are due. Lists are by optimizer, in the plan's order."""

    plan: Plan
    results: Results
    task: int

    @property
    def due(self) -> list[Cell]:
        """The cells that are due, tuning first."""
        return [*(cell for cells in self.tuning for cell in cells), *self.reporting.cells]

    # --- tuning

    @cached_property
    def tuning(self) -> list[list[Cell]]:
        """The tuning cells that are due: all of the first rung, then those of trials certain to reach the next rung."""
        return [self._tuning(optimizer) for optimizer in range(len(self.plan.optimizers))]

    @cached_property
    def is_tuned(self) -> bool:
        """Whether every trial that is due has ended."""
        return all(self._have_ended(cells) for cells in self.tuning)

    @cached_property
    def chosen(self) -> dict[int, int]:
        """Optimizer -> the trial of the final runs; without optimizers that are still being tuned."""
        trials = {
            optimizer: self._chosen(optimizer) if planned.is_tuned else 0
            for optimizer, planned in enumerate(self.plan.optimizers)
        }
        return {optimizer: trial for optimizer, trial in trials.items() if trial is not None}

    def trial_score(self, optimizer: int, trial: int, rung: int) -> TrialScore | None:
        """Means over the tuning seeds; None while the trial runs, empty without a result.

        A trial that diverged on any seed ranks last, even if its other runs are good.
        """
        results = [self.results.get(cell) for cell in self._cells_of_trial(optimizer, trial, rung)]
        ended = [result for result in results if result is not None and result.is_final]
        if len(ended) < len(results):
            return None
        if any(result.failed for result in ended):
            return ()
        finite = [result for result in ended if not result.diverged]
        losses = [-result.val_loss for result in finite if result.val_loss is not None]
        accuracies = [result.val_accuracy for result in finite if result.val_accuracy is not None]
        has_accuracy = len(accuracies) == len(ended)
        if len(losses) < len(ended) or (not has_accuracy and self.plan.metric.endswith("accuracy")):
            return (float("-inf"),)
        if self.plan.validation_metric == "val_loss" or not has_accuracy:
            return (fmean(losses),)
        return fmean(accuracies), fmean(losses)

    def _tuning(self, optimizer: int) -> list[Cell]:
        if not self.plan.optimizers[optimizer].is_tuned:
            return []
        cells: list[Cell] = []
        trials: Sequence[int] = range(len(self.plan.optimizers[optimizer].trials))
        for rung in range(len(self.plan.rungs)):
            cells += [cell for trial in trials for cell in self._cells_of_trial(optimizer, trial, rung)]
            if rung + 1 < len(self.plan.rungs):
                trials = self._promoted(optimizer, rung, trials)
        return cells

    def _cells_of_trial(self, optimizer: int, trial: int, rung: int) -> list[Cell]:
        return [Cell("tuning", self.task, optimizer, trial, rung, seed) for seed in self.plan.tuning_seeds]

    def _promoted(self, optimizer: int, rung: int, trials: Sequence[int]) -> list[int]:
        """Trials that are certain to rank among the best of a rung, for any scores of the trials that still run.

        Unlike asynchronous halving (Li et al. 2020), this makes the choice independent of the order in which jobs end,
        and gives every optimizer the same number of runs.
        """
        places = self.plan.rungs[rung + 1].trials
        scores = {trial: self.trial_score(optimizer, trial, rung) for trial in trials}
        finished = [trial for trial in trials if scores[trial] is not None]
        running = len(trials) - len(finished)
        ranked = sorted(finished, key=lambda trial: (scores[trial], -trial), reverse=True)
        return sorted(ranked[: max(0, places - running)])

    def _chosen(self, optimizer: int) -> int | None:
        """The trial with the best score on the last rung; None while trials run, or if none has a result."""
        last, count = len(self.plan.rungs) - 1, len(self.plan.optimizers[optimizer].trials)
        expected = min(self.plan.rungs[last].trials, count) if last else count
        trials = sorted({cell.trial for cell in self.tuning[optimizer] if cell.rung == last})
        scores = {trial: self.trial_score(optimizer, trial, last) for trial in trials}
        if len(trials) < expected or None in scores.values() or not any(scores.values()):
            return None
        return max(scores, key=lambda trial: (scores[trial], -trial))

    # --- final runs

    @cached_property
    def reported(self) -> list[dict[int, Result]]:
        """Seed -> result of the chosen trial."""
        return [self._reported(optimizer) for optimizer in range(len(self.plan.optimizers))]

    @cached_property
    def values(self) -> list[Values]:
        """Seed -> endpoint, or the declared score of a diverged run."""
        return [
            {seed: value for seed, result in results.items() if (value := self.score(result)) is not None}
            for results in self.reported
        ]

    @cached_property
    def lost(self) -> list[frozenset[int]]:
        """Seeds whose final run ended without a result."""
        return [frozenset(seed for seed, result in results.items() if result.failed) for results in self.reported]

    @property
    def looks_done(self) -> list[int]:
        """Number of looks for which all runs of an optimizer have ended."""
        return self.reporting.looks_done

    @property
    def is_complete(self) -> bool:
        """Whether the task needs no further run."""
        return self.reporting.is_complete

    @cached_property
    def reporting(self) -> Reporting:
        """The final runs that are due, and the looks that are complete."""
        reporting = Reporting(looks_done=[0] * len(self.plan.optimizers))
        contenders = set(self.chosen)
        for number in range(len(self.plan.looks)):
            cells = self._cells_of_look(number, contenders)
            reporting.cells += cells
            if not self.is_tuned or not self._have_ended(cells):
                return reporting
            for optimizer in contenders:
                reporting.looks_done[optimizer] = number + 1
            if number + 1 == len(self.plan.looks):
                break
            contenders &= unbeaten(TaskScores(self.values, reporting.looks_done, self.lost), family(self.plan))
            contenders -= {optimizer for optimizer in contenders if self.lost[optimizer]}  # not tested
            if len(contenders) < 2:
                break
        reporting.is_complete = True
        return reporting

    def score(self, result: Result) -> float | None:
        """The endpoint of a final run, or the declared score if it diverged; None without either."""
        if result.diverged:
            return self.plan.tasks[self.task].diverged_score
        return result.value if result.status is JobStatus.SUCCEEDED else None

    def _reported(self, optimizer: int) -> dict[int, Result]:
        trial = self.chosen.get(optimizer)
        if trial is None:
            return {}
        cells = [Cell("report", self.task, optimizer, trial, 0, seed) for seed in self.plan.seeds]
        return {cell.seed: self.results[cell] for cell in cells if cell in self.results}

    def _cells_of_look(self, number: int, optimizers: set[int]) -> list[Cell]:
        """The seeds that a look adds."""
        seeds = self.plan.seeds[self.plan.looks[number - 1] if number else 0 : self.plan.looks[number]]
        return [
            Cell("report", self.task, optimizer, self.chosen[optimizer], 0, seed)
            for optimizer in sorted(optimizers)
            for seed in seeds
        ]

    def _have_ended(self, cells: Sequence[Cell]) -> bool:
        return all(cell in self.results and self.results[cell].is_final for cell in cells)
