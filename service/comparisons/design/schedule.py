"""In which order a comparison's runs are wanted, and which trial is chosen. Pure: plan and results in, cells out.

Tuning first, each optimizer by itself; the chosen trial then runs on the reported seeds, up to the first look; later
seeds only while a task is undecided, and only for optimizers that are not significantly behind another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from service.comparisons.design.plan import Cell, Plan
from service.specs.metric_text import sign
from service.specs.training import JobStatus, Reason
from service.stats.multiple_testing import Family, Sampled, Values, standing

Score = tuple[float, ...]
"""What trials are ranked by, the best being the largest; ties in accuracy, frequent on small validation sets, go to
the lower loss."""


@dataclass(frozen=True)
class Result:
    """How the job of a cell stands. `value` is the primary endpoint; the others choose between trials."""

    status: JobStatus
    reason: Reason | None
    value: float | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_final

    @property
    def diverged(self) -> bool:
        """Whether the run ended in a loss that is not finite: a result, unlike other failures."""
        return self.reason is Reason.DIVERGED

    @property
    def failed(self) -> bool:
        """Whether the job ended without saying anything about its optimizer."""
        return self.is_final and self.status is not JobStatus.SUCCEEDED and not self.diverged


Results = Mapping[Cell, Result]


# --- what is wanted next ---------------------------------------------------------------------------------------------


def wanted(plan: Plan, results: Results) -> list[Cell]:
    """All cells whose turn it is, those that have a result included."""
    cells: list[Cell] = []
    for task in range(len(plan.tasks)):
        cells += [cell for optimizer in range(len(plan.optimizers)) for cell in _tuning(plan, results, task, optimizer)]
        cells += reporting(plan, results, task).cells
    return cells


def _tuning(plan: Plan, results: Results, task: int, optimizer: int) -> Iterator[Cell]:
    """The trials of an optimizer: all of the first rung, then those that are sure of their place in the next."""
    if not plan.optimizers[optimizer].is_tuned:
        return
    going_on: Sequence[int] = range(len(plan.optimizers[optimizer].trials))
    for rung in range(len(plan.rungs)):
        for trial in going_on:
            yield from _cells_of_trial(plan, task, optimizer, trial, rung)
        if rung + 1 < len(plan.rungs):
            going_on = _promoted(plan, results, task, optimizer, rung, going_on)


def _cells_of_trial(plan: Plan, task: int, optimizer: int, trial: int, rung: int) -> list[Cell]:
    return [Cell("tuning", task, optimizer, trial, rung, seed) for seed in plan.tuning_seeds]


def _promoted(plan: Plan, results: Results, task: int, optimizer: int, rung: int, trials: Sequence[int]) -> list[int]:
    """Trials that belong to the best of a rung whatever those still running come to.

    Waiting until that is certain makes the choice independent of which jobs end first, and gives every optimizer the
    same number of runs, which the usual asynchronous rule (Li et al. 2020) does not.
    """
    places = plan.rungs[rung + 1].trials
    scores = {trial: score(plan, results, task, optimizer, trial, rung) for trial in trials}
    finished = [trial for trial in trials if scores[trial] is not None]
    running = len(trials) - len(finished)
    ranked = sorted(finished, key=lambda trial: (scores[trial], -trial), reverse=True)
    return sorted(ranked[: max(0, places - running)])


@dataclass
class Reporting:
    """The reported runs of a task that are wanted by now: up to the look that is not complete, or that decides."""

    cells: list[Cell] = field(default_factory=list)
    looks_done: list[int] = field(default_factory=list)
    """By optimizer: for how many looks it has all its runs; one that is significantly behind stays at its last."""
    is_complete: bool = False
    """Whether the task needs no run any more."""


def reporting(plan: Plan, results: Results, task: int) -> Reporting:
    """How far the reported runs of a task are, and which of them are wanted."""
    chosen = chosen_trials(plan, results, task)
    found = Reporting(looks_done=[0] * len(plan.optimizers))
    contenders = set(chosen)
    tuning_is_over_now = tuning_is_over(plan, results, task)
    for number, look in enumerate(plan.looks):
        start = plan.looks[number - 1] if number else 0
        cells = [
            Cell("report", task, optimizer, chosen[optimizer], 0, seed)
            for optimizer in sorted(contenders)
            for seed in plan.seeds[start:look]
        ]
        found.cells += cells
        if not tuning_is_over_now or not all(cell in results and results[cell].is_final for cell in cells):
            return found
        for optimizer in contenders:
            found.looks_done[optimizer] = number + 1
        if number + 1 == len(plan.looks):
            break
        gone = lost(plan, results, task, chosen)
        sampled = Sampled(values(plan, results, task, chosen), found.looks_done, gone)
        contenders &= set(standing(sampled, family(plan)).unbeaten)
        contenders -= {optimizer for optimizer in contenders if gone[optimizer]}  # more seeds would not be tested
        if len(contenders) < 2:
            break
    found.is_complete = True
    return found


def tuning_is_over(plan: Plan, results: Results, task: int) -> bool:
    """Whether every trial of a task that is wanted has ended."""
    cells = [cell for optimizer in range(len(plan.optimizers)) for cell in _tuning(plan, results, task, optimizer)]
    return all(cell in results and results[cell].is_final for cell in cells)


# --- what is known ---------------------------------------------------------------------------------------------------


def family(plan: Plan) -> Family:
    """The tests of all pairs of a plan."""
    return Family(
        pairs=plan.pairs,
        looks=tuple(plan.looks),
        stopping=plan.stopping,
        seeds=tuple(plan.seeds),
        sign=sign(plan.metric),
    )


def values(plan: Plan, results: Results, task: int, chosen: Mapping[int, int]) -> list[Values]:
    """Seed -> endpoint of each optimizer. A diverged run has the declared score, if there is one."""
    found: list[Values] = []
    for optimizer in range(len(plan.optimizers)):
        of_one: dict[int, float] = {}
        trial = chosen.get(optimizer)
        for seed in plan.seeds if trial is not None else ():
            assert trial is not None
            result = results.get(Cell("report", task, optimizer, trial, 0, seed))
            value = None if result is None else scored(plan, task, result)
            if value is not None:
                of_one[seed] = value
        found.append(of_one)
    return found


def lost(plan: Plan, results: Results, task: int, chosen: Mapping[int, int]) -> list[frozenset[int]]:
    """Seeds of each optimizer whose reported run ended without saying anything about it."""
    return [
        frozenset(
            seed
            for seed in plan.seeds
            if optimizer in chosen
            and (result := results.get(Cell("report", task, optimizer, chosen[optimizer], 0, seed)))
            and result.failed
        )
        for optimizer in range(len(plan.optimizers))
    ]


def scored(plan: Plan, task: int, result: Result) -> float | None:
    """What a reported run scores: the endpoint, or the declared score where it diverged; None: nothing."""
    if result.diverged:
        return plan.tasks[task].diverged_score
    return result.value if result.status is JobStatus.SUCCEEDED else None


def validation_metric(plan: Plan) -> str:
    """What trials are judged by: the endpoint's counterpart on validation data."""
    return "val_loss" if plan.metric.endswith("loss") else "val_accuracy"


def choose(plan: Plan, results: Results, task: int, optimizer: int) -> int | None:
    """The trial with the best score on the last rung; None while trials run, or where none said anything."""
    last = len(plan.rungs) - 1
    tuning = list(_tuning(plan, results, task, optimizer))
    expected = plan.rungs[last].trials if last else len(plan.optimizers[optimizer].trials)
    trials = sorted({cell.trial for cell in tuning if cell.rung == last})
    if len(trials) < min(expected, len(plan.optimizers[optimizer].trials)):
        return None
    scores = {trial: score(plan, results, task, optimizer, trial, last) for trial in trials}
    if any(one is None for one in scores.values()):
        return None
    return max(scores, key=lambda trial: (scores[trial], -trial)) if any(scores.values()) else None


def score(plan: Plan, results: Results, task: int, optimizer: int, trial: int, rung: int) -> Score | None:
    """What a trial is ranked by: means over the tuning seeds. None while it runs; empty where it said nothing.

    One seed that diverged makes a trial the worst there is: a rate that is good on average of the surviving runs is not
    a good rate.
    """
    found = [results.get(cell) for cell in _cells_of_trial(plan, task, optimizer, trial, rung)]
    if any(one is None or not one.is_final for one in found):
        return None
    ended = [one for one in found if one is not None]
    if any(one.failed for one in ended):
        return ()
    losses = [-one.val_loss for one in ended if one.val_loss is not None and not one.diverged]
    accuracies = [one.val_accuracy for one in ended if one.val_accuracy is not None and not one.diverged]
    if len(losses) < len(ended) or (len(accuracies) < len(ended) and plan.metric.endswith("accuracy")):
        return (float("-inf"),)
    if validation_metric(plan) == "val_loss" or len(accuracies) < len(ended):
        return (fmean(losses),)
    return fmean(accuracies), fmean(losses)


def chosen_trials(plan: Plan, results: Results, task: int) -> dict[int, int]:
    """Optimizer -> the trial that is reported, as far as it is known."""
    found = {
        optimizer: choose(plan, results, task, optimizer) if one.is_tuned else 0
        for optimizer, one in enumerate(plan.optimizers)
    }
    return {optimizer: trial for optimizer, trial in found.items() if trial is not None}
