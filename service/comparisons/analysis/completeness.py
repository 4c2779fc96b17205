"""What keeps a comparison, or one of its tasks, from a verdict: it is not over, ended early, or runs are missing.

A test says what it says of the runs that were planned. On fewer, chosen by whoever cancelled the others, by a time
limit or by a full memory, it would say something else, so nothing is tested there; asking again runs what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.comparisons.answers import FirstToTarget, PairView
from service.comparisons.design import schedule as protocol
from service.comparisons.design.plan import Plan
from service.comparisons.design.runs import CellRun
from service.specs.metric_text import listed, many
from service.specs.training import ComparisonStatus
from service.stats.multiple_testing import RUNS_ARE_MISSING

INCOMPARABLE = "not comparable with the others"


@dataclass(frozen=True)
class Obstacle:
    """Why nothing can be said of any task: as a verdict, as the reason beside a pair, and for the methods."""

    verdict: str
    pair: str
    methods: str = ""


def obstacle(plan: Plan, status: ComparisonStatus, ended: int, *, is_complete: bool) -> Obstacle | None:
    """What stands in the way of all verdicts; None where tests may be read. `ended`: reported runs with a result.

    A cancelled comparison has none however it was planned: it ended when somebody wanted it to.
    """
    runs = f"{ended} of {many(len(plan.tasks) * len(plan.optimizers) * len(plan.seeds), 'reported run')}"
    if status is ComparisonStatus.CANCELLED:
        return Obstacle(
            f"No verdict: the comparison was cancelled with {runs}.",
            "cannot say, because the comparison was cancelled",
            f"The comparison was cancelled with {runs}: nothing was tested.",
        )
    if is_complete:
        return None
    if status is not ComparisonStatus.RUNNING:
        return Obstacle(
            f"No verdict: the comparison ended early, with {runs}.",
            "cannot say, because the comparison ended early",
            f"The comparison ended early, with {runs}: nothing was tested.",
        )
    if plan.stopping != "fixed":
        return None
    return Obstacle(
        f"No verdict yet: {runs} are there, and one look was planned, at the end.",
        "cannot say yet, because one look was planned, at the end",
    )


def missing_runs(
    plan: Plan, task: int, runs: Sequence[CellRun], chosen: Mapping[int, int], lost: Sequence[Collection[int]]
) -> str:
    """Which planned runs of a task are missing, and why, as sentences; empty where none is."""
    of_task = [run for run in runs if run.cell.task == task]
    parts = list(_parts(plan, task, of_task, chosen))
    if not parts:
        return ""
    planned = len({run.cell.seed for run in of_task if run.cell.phase == "report"})
    left = planned - len(frozenset[int]().union(*lost))
    rest = f" {left} of {many(planned, 'seed')} have all their runs, and what was planned is not tested on fewer."
    again = " Asking again runs only what is missing." if plan.reuses(task) else ""
    return f"No verdict: {listed(parts, most=None)}.{rest if any(lost) else ''}{again}"


def _parts(plan: Plan, task: int, runs: Sequence[CellRun], chosen: Mapping[int, int]) -> Iterator[str]:
    results = {run.cell: run.result for run in runs}
    if len(chosen) < len(plan.optimizers) and not protocol.tuning_is_over(plan, results, task):
        return  # nothing is lost yet
    for optimizer, one in enumerate(plan.optimizers):
        phase = "report" if optimizer in chosen else "tuning"
        mine = [run for run in runs if (run.cell.phase, run.cell.optimizer) == (phase, optimizer)]
        failed = [run for run in mine if run.result.failed]
        if not failed:
            continue
        why = listed([reason for reason, _ in Counter(map(_reason, failed)).most_common()], most=None)
        if phase == "tuning":
            yield f"no trial of {one.label} has a result ({why})"
        else:
            verb = "is" if len(failed) == 1 else "are"
            yield f"{len(failed)} of {many(len(mine), 'run')} of {one.label} {verb} missing ({why})"


def _reason(run: CellRun) -> str:
    return run.result.reason.replace("_", " ") if run.result.reason else INCOMPARABLE


def untested(pair: PairView, why: str) -> PairView:
    """A pair without all that tests, or could be taken for a test: an interval that excludes zero is one."""
    detail = {
        "skewed": None,
        "p_permutation": None,
        "p_wilcoxon": None,
        "cannot_say": why,
        "permutation_cannot_say": why,
        "wilcoxon_cannot_say": why,
    }
    return pair.model_copy(
        update={
            "interval": None,
            "p": None,
            "p_adjusted": None,
            "significant": False,
            "seeds_needed": None,
            "detail": pair.detail.model_copy(update=detail),
            "cannot_say": why,
        }
    )


def untested_pairs(pairs: Sequence[PairView], found: Obstacle | None) -> list[PairView]:
    """All pairs without tests where something stands in the way of all, else those alone whose runs are missing."""
    why = RUNS_ARE_MISSING if found is None else found.pair
    return [pair if found is None and pair.cannot_say != why else untested(pair, why) for pair in pairs]


def untested_races(
    races: Sequence[FirstToTarget], pairs: Sequence[PairView], found: Obstacle | None
) -> list[FirstToTarget]:
    """Who reached the target first, without a test for the same pairs."""
    why = RUNS_ARE_MISSING if found is None else found.pair
    closed = {frozenset((pair.a, pair.b)) for pair in pairs if pair.cannot_say == why}
    return [
        one.model_copy(update={"p": None, "cannot_say": why}) if frozenset((one.a, one.b)) in closed else one
        for one in races
    ]
