"""How an optimizer's parameters were chosen on a task: what was tried, what it scored, and how much depended on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from service import stats
from service.comparisons.answers import GoodRange, TrialView, TuningView
from service.comparisons.design import schedule as protocol
from service.comparisons.design.plan import Plan, scaled
from service.comparisons.design.runs import CellRun
from service.comparisons.design.schedule import Results

ACCURACY_TOLERANCE = 0.01
"""A learning rate is good if its accuracy is within one point of the best."""

FEWEST_VALUES = 4
"""Tried values of a parameter below which it means nothing that the best one is at an end."""

LOSS_TOLERANCE = 0.05
"""... or its loss within 5 % of the best."""


def view(
    plan: Plan, results: Results, runs: Sequence[CellRun], task: int, optimizer: int, chosen: int | None
) -> TuningView:
    """All trials of an optimizer on a task, on the last rung that each ran on, and the one that was chosen."""
    one = plan.optimizers[optimizer]
    mine = [run for run in runs if (run.cell.phase, run.cell.task, run.cell.optimizer) == ("tuning", task, optimizer)]
    trials = [_trial(plan, results, task, optimizer, trial, mine) for trial in range(len(one.trials))]
    metric = protocol.validation_metric(plan)
    higher = metric.endswith("accuracy")
    ended = [trial for trial in trials if trial.status != "waiting"]
    whole = [trial.score for trial in ended if trial.rung == len(plan.rungs) - 1]
    return TuningView(
        label=one.label,
        metric=metric,
        trials=trials,
        chosen=chosen,
        params=None if chosen is None else trials[chosen].params,
        at_edge=[] if chosen is None else _at_edge(plan, optimizer, chosen),
        expected_best=stats.expected_best(whole, higher) if whole and len(plan.rungs) == 1 else [],
        good_range=_good_range(trials, chosen, higher),
        seconds=sum(run.train_seconds or 0.0 for run in mine),
    )


def failed(view: TuningView) -> int:
    """How many trials ended without a result."""
    return sum(trial.status == "failed" for trial in view.trials)


def _trial(plan: Plan, results: Results, task: int, optimizer: int, trial: int, runs: Sequence[CellRun]) -> TrialView:
    own = [run for run in runs if run.cell.trial == trial]
    rung = max((run.cell.rung for run in own), default=0)
    last = [run for run in own if run.cell.rung == rung]
    score = protocol.score(plan, results, task, optimizer, trial, rung)
    status: Literal["waiting", "finished", "diverged", "failed"]
    status = "waiting" if score is None else "failed" if not score else "finished"
    if any(run.result.diverged for run in last):
        status = "diverged"
    sign = 1 if protocol.validation_metric(plan).endswith("accuracy") else -1
    return TrialView(
        trial=trial,
        params=_tuned(plan, optimizer, trial),
        rung=rung,
        budget=scaled(plan.tasks[task].spec["budget"], plan.rungs[rung].share),
        score=sign * score[0] if score and status == "finished" else None,
        status=status,
        seconds=sum(run.train_seconds or 0.0 for run in last) if last else None,
        jobs=[run.job for run in last],
    )


def _tuned(plan: Plan, optimizer: int, trial: int) -> dict[str, Any]:
    one = plan.optimizers[optimizer]
    return {name: one.trials[trial][name] for name in one.space or {}}


def _at_edge(plan: Plan, optimizer: int, chosen: int) -> list[str]:
    """Tuned numbers whose chosen value is the smallest or largest of those tried; of few, an end says nothing."""
    best = plan.optimizers[optimizer].trials[chosen]
    return [
        name
        for name, tried in tuned_numbers(plan, optimizer)
        if len(tried) >= FEWEST_VALUES and best[name] in (min(tried), max(tried))
    ]


def tuned_numbers(plan: Plan, optimizer: int) -> Iterator[tuple[str, set[float]]]:
    """The tuned parameters of an optimizer that are numbers, and the different values each was tried at."""
    one = plan.optimizers[optimizer]
    for name in one.space or {}:
        tried = [trial[name] for trial in one.trials]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried):
            yield name, set(tried)


def _good_range(trials: Sequence[TrialView], chosen: int | None, higher: bool) -> GoodRange | None:
    """The width of the range of good learning rates; where other parameters were tuned, too, at their chosen values."""
    if chosen is None or "lr" not in trials[chosen].params:
        return None
    others = _without_lr(trials[chosen].params)
    alike = [trial for trial in trials if _without_lr(trial.params) == others and trial.rung == trials[chosen].rung]
    best = trials[chosen].score
    tolerance = ACCURACY_TOLERANCE if higher else LOSS_TOLERANCE * abs(best or 0.0)
    found = stats.good_range(
        [trial.params["lr"] for trial in alike], [trial.score for trial in alike], tolerance, higher
    )
    return GoodRange(tolerance=tolerance, **vars(found))


def _without_lr(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "lr"}
