"""Which planned runs are missing, and whether that blocks a verdict.

A test holds for the runs that were planned. On fewer, because someone cancelled the others or because they exceeded a
time limit or the memory, its error rate is unknown, so nothing is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.comparisons.analysis.grouping import ENVIRONMENT_WORDS
from service.comparisons.analysis.runs import CellRun
from service.comparisons.design.plan import Plan
from service.comparisons.design.schedule import TaskResults
from service.specs.states import ComparisonStatus
from service.specs.text import counted, listed
from service.stats.multiple_testing import RUNS_ARE_MISSING

INCOMPARABLE = "not comparable with the others"


@dataclass(frozen=True)
class Obstacle:
    """Why a task has no verdict, worded for the verdict, for a pair and for the methods."""

    verdict: str
    pair: str
    methods: str = ""
    is_of_task: bool = False
    """Whether only runs of the task are missing, so that pairs without missing runs are still tested."""


def blocked_by(plan: Plan, status: ComparisonStatus, ended: int, *, is_complete: bool) -> Obstacle | None:
    """The obstacle to verdicts on all tasks; None if tests may be read. `ended`: number of final runs with a result.

    A cancelled comparison has no verdict under any stopping rule, because its end may have depended on its results.
    """
    runs = f"{ended:,} of {counted(len(plan.tasks) * len(plan.optimizers) * len(plan.seeds), 'final run')}"
    if status is ComparisonStatus.CANCELLED:
        return Obstacle(
            f"No verdict: the comparison was cancelled after {runs}.",
            "the comparison was cancelled",
            f"The comparison was cancelled after {runs}, so no hypothesis test was performed.",
        )
    if is_complete:
        return None
    if status is not ComparisonStatus.RUNNING:
        return Obstacle(
            f"No verdict: the comparison ended early, after {runs}.",
            "the comparison ended early",
            f"The comparison ended early, after {runs}, so no hypothesis test was performed.",
        )
    if plan.stopping != "fixed":
        return None
    return Obstacle(
        f"No verdict yet: {runs} have finished, and the plan has a single test, at the end.",
        "the plan has a single test, at the end",
    )


def missing_runs(task: TaskResults, runs: Sequence[CellRun]) -> Obstacle | None:
    """The obstacle that planned runs of a task are missing; None if none is. `runs` are the task's."""
    parts = list(_parts(task, runs))
    if not parts:
        return None
    planned = len({run.cell.seed for run in runs if run.cell.phase == "report"})
    left = planned - len(frozenset[int]().union(*task.lost))
    rest = f" {left} of {counted(planned, 'seed')} are complete; tests need every planned run."
    again = ""
    if task.plan.reuses(task.task):
        incomparable = any(run.result.failed and _reason(run) == INCOMPARABLE for run in runs)
        again = (
            f" Once all workers have the same {ENVIRONMENT_WORDS}, submit the comparison again."
            if incomparable
            else " Submit the comparison again to run only the missing runs."
        )
    text = f"No verdict: {listed(parts)}.{rest if any(task.lost) else ''}{again}"
    return Obstacle(text, RUNS_ARE_MISSING, is_of_task=True)


def _parts(task: TaskResults, runs: Sequence[CellRun]) -> Iterator[str]:
    if len(task.chosen) < len(task.plan.optimizers) and not task.is_tuned:
        return  # further trials may still give a result
    for position, optimizer in enumerate(task.plan.optimizers):
        phase = "report" if position in task.chosen else "tuning"
        of_optimizer = [run for run in runs if (run.cell.phase, run.cell.optimizer) == (phase, position)]
        failed = [run for run in of_optimizer if run.result.failed]
        if not failed:
            continue
        reasons = [reason for reason, _ in Counter(map(_reason, failed)).most_common()]
        why = listed(reasons)
        if phase == "tuning":
            yield f"no trial of {optimizer.label} has a result ({why})"
        else:
            verb = "is" if len(failed) == 1 else "are"
            what = "excluded" if reasons == [INCOMPARABLE] else "missing"
            yield f"{len(failed)} of {counted(len(of_optimizer), 'run')} of {optimizer.label} {verb} {what} ({why})"


def _reason(run: CellRun) -> str:
    return run.result.reason.words if run.result.reason else INCOMPARABLE
