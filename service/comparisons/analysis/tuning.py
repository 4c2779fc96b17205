"""Tuning of an optimizer on a task: trials, scores, and sensitivity to the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service import stats
from service.comparisons.analysis.runs import CellRun
from service.comparisons.answers import GoodRange, TrialView, TuningView
from service.comparisons.design.plan import PlannedOptimizer, scaled
from service.comparisons.design.schedule import TaskResults

ACCURACY_TOLERANCE = 0.01
"""A learning rate is good if its accuracy is within one percentage point of the best, ..."""

LOSS_TOLERANCE = 0.05
"""... or its loss within 5 % of the best."""

MIN_VALUES = 4
"""Number of values of a parameter from which the best being the lowest or highest one tried suggests a wider range."""


def tuning_view(task: TaskResults, runs: Sequence[CellRun], optimizer: int) -> TuningView:
    """All trials of an optimizer, each on its last rung, and the chosen one. `runs` are the task's."""
    plan, chosen = task.plan, task.chosen.get(optimizer)
    of_optimizer = [run for run in runs if (run.cell.phase, run.cell.optimizer) == ("tuning", optimizer)]
    trials = [_trial(task, optimizer, trial, of_optimizer) for trial in range(len(plan.optimizers[optimizer].trials))]
    higher = plan.validation_metric.endswith("accuracy")
    ended = [trial for trial in trials if trial.status != "waiting"]
    full_budget = [trial.score for trial in ended if trial.rung == len(plan.rungs) - 1]
    return TuningView(
        label=plan.optimizers[optimizer].label,
        metric=plan.validation_metric,
        trials=trials,
        chosen=chosen,
        params=None if chosen is None else trials[chosen].params,
        at_edge=[] if chosen is None else _at_edge(plan.optimizers[optimizer], chosen),
        expected_best=stats.expected_best(full_budget, higher) if full_budget and len(plan.rungs) == 1 else [],
        good_range=_good_range(trials, chosen, higher),
        seconds=sum(run.train_seconds or 0.0 for run in of_optimizer),
    )


def failed(view: TuningView) -> int:
    """Number of trials that ended without a result."""
    return sum(trial.status == "failed" for trial in view.trials)


def _trial(task: TaskResults, optimizer: int, trial: int, runs: Sequence[CellRun]) -> TrialView:
    plan = task.plan
    of_trial = [run for run in runs if run.cell.trial == trial]
    rung = max((run.cell.rung for run in of_trial), default=0)
    last = [run for run in of_trial if run.cell.rung == rung]
    score = task.trial_score(optimizer, trial, rung)
    status: Literal["waiting", "finished", "diverged", "failed"]
    status = "waiting" if score is None else "failed" if not score else "finished"
    if any(run.result.diverged for run in last):
        status = "diverged"
    sign = 1 if plan.validation_metric.endswith("accuracy") else -1
    return TrialView(
        trial=trial,
        params=plan.optimizers[optimizer].tuned(trial),
        rung=rung,
        budget=scaled(plan.tasks[task.task].spec["budget"], plan.rungs[rung].share),
        score=sign * score[0] if score and status == "finished" else None,
        status=status,
        seconds=sum(run.train_seconds or 0.0 for run in last) if last else None,
        jobs=[run.job for run in last],
    )


def _at_edge(optimizer: PlannedOptimizer, chosen: int) -> list[str]:
    """Tuned numbers whose chosen value is the smallest or largest one tried, if enough values were tried."""
    best = optimizer.trials[chosen]
    return [
        name
        for name, tried in optimizer.tuned_numbers()
        if len(tried) >= MIN_VALUES and best[name] in (min(tried), max(tried))
    ]


def _good_range(trials: Sequence[TrialView], chosen: int | None, higher: bool) -> GoodRange | None:
    """The width of the range of good learning rates, with other tuned parameters at their chosen values."""
    if chosen is None or "lr" not in trials[chosen].params:
        return None
    others = _without_lr(trials[chosen].params)
    alike = [trial for trial in trials if _without_lr(trial.params) == others and trial.rung == trials[chosen].rung]
    best = trials[chosen].score
    tolerance = ACCURACY_TOLERANCE if higher else LOSS_TOLERANCE * abs(best or 0.0)
    good = stats.good_range(
        [trial.params["lr"] for trial in alike], [trial.score for trial in alike], tolerance, higher
    )
    return GoodRange(tolerance=tolerance, **vars(good))


def _without_lr(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "lr"}
