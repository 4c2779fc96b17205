"""Progress of a comparison: number of runs by status, and device time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from service.comparisons.analysis.runs import CellRun
from service.comparisons.answers import ComparisonProgress
from service.comparisons.design.durations import Estimates, cell_seconds, max_seconds
from service.comparisons.design.plan import Plan
from service.specs.states import JobStatus


def progress(plan: Plan, runs: Sequence[CellRun], estimates: Estimates, *, is_over: bool) -> ComparisonProgress:
    """The counts, and the time used and left. `estimates` are read only while the comparison runs."""
    statuses = Counter(run.result.status for run in runs)
    diverged = sum(run.result.diverged for run in runs)
    return ComparisonProgress(
        phase="finished" if is_over else _phase(runs),
        jobs=len(runs),
        jobs_at_most=plan.jobs(),
        queued=statuses[JobStatus.QUEUED],
        running=statuses[JobStatus.RUNNING],
        succeeded=statuses[JobStatus.SUCCEEDED],
        diverged=diverged,
        failed=statuses[JobStatus.FAILED] - diverged,
        cancelled=statuses[JobStatus.CANCELLED],
        reused=sum(run.is_reused for run in runs),
        seconds_used=sum({run.job: run.total_seconds or 0.0 for run in runs if not run.is_reused}.values()),
        seconds_left=0.0 if is_over else _seconds_left(plan, runs, estimates),
    )


def _phase(runs: Sequence[CellRun]) -> Literal["tuning", "reporting"]:
    is_tuning = any(not run.result.is_final for run in runs if run.cell.phase == "tuning")
    return "tuning" if is_tuning else "reporting"


def _seconds_left(plan: Plan, runs: Sequence[CellRun], estimates: Estimates) -> float | None:
    """Upper bound of the remaining device time; None if a duration is unknown."""
    total = max_seconds(plan, estimates)
    done = sum(cell_seconds(plan, estimates, run.cell) or 0.0 for run in runs if run.result.is_final)
    return None if total is None else max(0.0, total - done)
