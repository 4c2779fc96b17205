"""Which runs of a comparison can be counted, and as what: the same for what is run next and for what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from service.comparisons.analysis.grouping import ENVIRONMENT_SETTING
from service.comparisons.design.plan import LARGEST, Cell, Plan
from service.comparisons.design.runs import CellRun
from service.comparisons.design.schedule import Result
from service.specs.training import JobStatus, Reason


def settled(plan: Plan, runs: Sequence[CellRun]) -> list[CellRun]:
    """The runs, as they count.

    One that ended without a value of the endpoint, because that was not finite, or with one too large to compute with,
    has diverged. One on other data, or
    another torch or kind of device, than most of its task trains to other numbers from the same spec: it says nothing
    here, and is not run again, because it would only end up there again.
    """
    found = {run.cell: _with_divergence(_within_bounds(run)) for run in runs}
    for task in range(len(plan.tasks)):
        mine = [run for run in found.values() if (run.cell.phase, run.cell.task) == ("report", task) and counts(run)]
        for run, why in _strange(mine, _names(plan, task)):
            found[run.cell] = replace(run, result=Result(JobStatus.FAILED, None), message=why)
    return list(found.values())


def _within_bounds(run: CellRun) -> CellRun:
    """A loss of 1e300 is finite, and no more than one that is not."""
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


def counts(run: CellRun) -> bool:
    """Whether a run has ended and says something about its optimizer."""
    return run.result.is_final and not run.result.failed


def _names(plan: Plan, task: int) -> list[str]:
    """What has to be equal; of runs whose result is a time, the device itself, too."""
    timed = plan.tasks[task].spec["budget"].get("seconds") is not None or plan.metric.endswith("per_second")
    return [*ENVIRONMENT_SETTING, *(["device_name"] if timed else [])]


def _strange(runs: Sequence[CellRun], names: Sequence[str]) -> list[tuple[CellRun, str]]:
    found: dict[Cell, tuple[CellRun, str]] = {}
    for name in names:
        seen = Counter(str(run.environment[name]) for run in runs)
        if len(seen) < 2:
            continue
        usual = seen.most_common(1)[0][0]
        for run in runs:
            if str(run.environment[name]) != usual:
                own = run.environment[name]
                why = f"not comparable: its {name.replace('_', ' ')} is {own}, that of most {usual}"
                found.setdefault(run.cell, (run, why))
    return list(found.values())
