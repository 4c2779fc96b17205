"""What can be said over all tasks of a comparison. Seeds are not tasks: with few tasks, that is little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service import stats
from service.comparisons.answers import AcrossTasks, Improvement, ProfileView, Rank, TaskAnswer
from service.comparisons.design.plan import Plan
from service.specs.metric_text import sign
from service.stats.multiple_testing import Values

FEWEST_TASKS = 8
"""Below, a rank test over tasks has no power and its p no meaning (Demsar 2006)."""

RATIOS = [round(1 + step / 20, 2) for step in range(61)]
"""Of a performance profile: from 1 to 4 times the fastest, as AlgoPerf integrates it."""


def across_tasks(plan: Plan, tasks: Sequence[TaskAnswer], values: Sequence[Sequence[Values]]) -> AcrossTasks | None:
    """All tasks together, once they are complete; None where an optimizer has no run on one of them.

    `values` are by task, and then by optimizer in the order of the plan.
    """
    metric, labels = plan.metric, [one.label for one in plan.optimizers]
    if any(not of_one for of_task in values for of_one in of_task):
        return None
    scores = [  # optimizer -> task -> seeds, larger is better
        [sign(metric) * np.array(list(of_task[position].values())) for of_task in values]
        for position in range(len(labels))
    ]
    means = np.array([[float(seeds.mean()) for seeds in of_one] for of_one in scores]).T  # (tasks, optimizers)
    friedman = stats.friedman(means)
    ranks = stats.average_ranks(means)
    times = _times(tasks, labels)
    algoperf = None if times is None else stats.algoperf_scores(times)
    standings = [
        _rank(
            label,
            float(ranks[position]),
            scores[position],
            sign(metric),
            None if algoperf is None else float(algoperf[position]),
        )
        for position, label in enumerate(labels)
    ]
    standings.sort(key=lambda one: (one.mean_rank or 0.0, one.label))
    enough = len(tasks) >= FEWEST_TASKS
    return AcrossTasks(
        tasks=len(tasks),
        ranks=standings,
        improvements=[
            _improvement(labels[a], labels[b], scores[a], scores[b]) for a, b in combinations(range(len(labels)), 2)
        ],
        profiles=[] if times is None else _profiles(labels, times),
        friedman_p=friedman.p,
        critical_difference=stats.nemenyi_critical_difference(len(labels), len(tasks)) if enough else None,
        sentences=[_sentence(standings, len(tasks), friedman.p)],
        cannot_say=list(_unsaid(friedman.cannot_say, enough=enough, timed=times is not None)),
    )


def _unsaid(friedman: str | None, *, enough: bool, timed: bool) -> Iterator[str]:
    if friedman is not None:
        yield f"Friedman's test: {friedman}"
    if not enough:
        yield f"Critical difference: cannot say, because ranks need {FEWEST_TASKS} tasks to be tested"
    if not timed:
        yield "AlgoPerf's score and profiles: cannot say, because not every task has a target"


def _rank(
    label: str, mean_rank: float, scores: Sequence[NDArray[np.float64]], direction: int, algoperf: float | None
) -> Rank:
    iqm = stats.interquartile_mean_across(scores)
    ends = sorted(direction * end for end in iqm.interval) if iqm.interval else None
    return Rank(
        label=label,
        mean_rank=mean_rank,
        iqm=None if iqm.value is None else direction * iqm.value,
        iqm_interval=(ends[0], ends[1]) if ends else None,
        iqm_cannot_say=iqm.cannot_say,
        algoperf=algoperf,
    )


def _times(tasks: Sequence[TaskAnswer], labels: Sequence[str]) -> NDArray[np.float64] | None:
    """Median seconds to the target, shape (optimizers, tasks), inf for a miss; None where a task has no target."""
    if not all(task.to_target for task in tasks):
        return None
    found = [{one.label: one.seconds for one in task.to_target} for task in tasks]
    return np.array([[np.inf if (time := of_task[label]) is None else time for of_task in found] for label in labels])


def _profiles(labels: Sequence[str], times: NDArray[np.float64]) -> list[ProfileView]:
    shares = stats.performance_profile(times, RATIOS)
    return [
        ProfileView(label=label, ratios=RATIOS, shares=[float(share) for share in of_one])
        for label, of_one in zip(labels, shares, strict=True)
    ]


def _improvement(a: str, b: str, x: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]]) -> Improvement:
    found = stats.probability_of_improvement(x, y)
    return Improvement(a=a, b=b, probability=found.value, interval=found.interval, cannot_say=found.cannot_say)


def _sentence(standings: Sequence[Rank], tasks: int, p: float | None) -> str:
    first = standings[0]
    text = f"Over {tasks} tasks, {first.label} has the best mean rank ({first.mean_rank:.1f} of {len(standings)})"
    if p is None:
        return f"{text}; with so few tasks that is a description, not a test."
    if p < 0.05:
        return f"{text}; ranks differ between optimizers (Friedman p = {p:.2g}, a test beside those of the pairs)."
    return f"{text}, but ranks do not differ beyond chance (Friedman p = {p:.2g})."
