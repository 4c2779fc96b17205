"""Which runs of a comparison count as results, divergences or failures. The schedule and the answer share this rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from service.comparisons.analysis.grouping import ENVIRONMENT_SETTING
from service.comparisons.analysis.runs import CellRun
from service.comparisons.design.plan import LARGEST, Cell, Plan
from service.comparisons.design.results import Result
from service.specs.states import JobStatus, Reason


def settled(plan: Plan, runs: Sequence[CellRun]) -> list[CellRun]:
    """Reclassify runs as diverged or failed.

    A run counts as diverged if it ended without a finite endpoint, or with one too large for arithmetic. A run whose
    data, torch or kind of device differs from most runs of its task counts as failed, because the same spec gives other
    numbers there. It is not repeated, because it would probably run on the same machine again.
    """
    counted = {run.cell: _with_divergence(_within_bounds(run)) for run in runs}
    for task in range(len(plan.tasks)):
        reported = [
            run for run in counted.values() if (run.cell.phase, run.cell.task) == ("report", task) and run.counts
        ]
        for run, why in _incomparable(reported, _fields_in_common(plan, task)):
            counted[run.cell] = replace(run, result=Result(JobStatus.FAILED, None), message=why)
    return list(counted.values())


def _within_bounds(run: CellRun) -> CellRun:
    """Remove metrics that are too large: a loss of 1e300 is finite, but as meaningless as infinity."""
    result = run.result
    numbers = (result.value, result.val_accuracy, result.val_loss)
    if all(number is None or abs(number) <= LARGEST for number in numbers):
        return run
    value, accuracy, loss = (None if number is None or not abs(number) <= LARGEST else number for number in numbers)
    return replace(run, result=replace(result, value=value, val_accuracy=accuracy, val_loss=loss))


def _with_divergence(run: CellRun) -> CellRun:
    if run.cell.phase == "report" and run.result.status is JobStatus.SUCCEEDED and run.result.value is None:
        return replace(run, result=Result(JobStatus.FAILED, Reason.DIVERGED))
    return run


def _fields_in_common(plan: Plan, task: int) -> list[str]:
    """Environment fields that have to be equal, including the device itself if the result is a time."""
    return [*ENVIRONMENT_SETTING, *(["device_name"] if plan.is_timed(task) else [])]


def _incomparable(runs: Sequence[CellRun], names: Sequence[str]) -> list[tuple[CellRun, str]]:
    reasons: dict[Cell, tuple[CellRun, str]] = {}
    for name in names:
        values = Counter(str(run.environment[name]) for run in runs)
        if len(values) < 2:
            continue
        usual = values.most_common(1)[0][0]
        for run in runs:
            if str(run.environment[name]) != usual:
                value = run.environment[name]
                what = "torch version" if name == "torch" else name.replace("_", " ")
                why = f"not comparable: its {what} is {value}; for most runs it is {usual}"
                reasons.setdefault(run.cell, (run, why))
    return list(reasons.values())
