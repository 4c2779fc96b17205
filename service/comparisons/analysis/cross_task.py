"""Analysis of all tasks of a comparison together. Its sample size is the number of tasks, not of seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service import stats
from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import Run
from service.comparisons.answers import AcrossTasks, Improvement, ProfileView, Rank, TaskAnswer
from service.specs.metric_text import sign
from service.specs.quantities import p_equation
from service.specs.text import listed
from service.stats.friedman import MIN_TASKS

_SAME_RANK = 1e-9
"""Smaller differences of mean ranks are rounding errors."""
RATIOS = [round(1 + step / 20, 2) for step in range(61)]
"""Abscissa of a performance profile: 1 to 4 times the fastest time, the range that AlgoPerf integrates."""


def cross_task(groups: Sequence[Sequence[Group[Run]]], tasks: Sequence[TaskAnswer]) -> AcrossTasks | None:
    """Analyze all tasks together, once they are complete; None if an optimizer has no run on one of them.

    `groups[task][optimizer]`: the optimizers have the same order on each task.
    """
    if any(not group.values for of_task in groups for group in of_task):
        return None
    labels, direction = [group.label for group in groups[0]], sign(tasks[0].metric)
    scores = [  # optimizer -> task -> seeds, larger is better
        [direction * np.array(list(of_task[position].values.values())) for of_task in groups]
        for position in range(len(labels))
    ]
    means = np.array([[float(seeds.mean()) for seeds in of_optimizer] for of_optimizer in scores]).T
    friedman = stats.friedman(means)  # of shape (tasks, optimizers)
    times = _times(tasks, labels)
    standings = _standings(labels, scores, stats.average_ranks(means), times, direction)
    enough = len(tasks) >= MIN_TASKS
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
        cannot_say=list(_missing_statistics(friedman.cannot_say, enough=enough, timed=times is not None)),
    )


def _standings(
    labels: Sequence[str],
    scores: Sequence[Sequence[NDArray[np.float64]]],
    ranks: NDArray[np.float64],
    times: NDArray[np.float64] | None,
    direction: int,
) -> list[Rank]:
    """The optimizers by mean rank, the best first."""
    algoperf = None if times is None else stats.algoperf_scores(times)
    standings = [
        _rank(
            label,
            float(ranks[position]),
            scores[position],
            direction,
            None if algoperf is None else float(algoperf[position]),
        )
        for position, label in enumerate(labels)
    ]
    return sorted(standings, key=lambda rank: (rank.mean_rank or 0.0, rank.label))


def _missing_statistics(friedman: str | None, *, enough: bool, timed: bool) -> Iterator[str]:
    if friedman is not None:
        yield f"Friedman's test: {friedman}"
    if not enough:
        yield f"Critical difference: testing ranks needs {MIN_TASKS} tasks"
    if not timed:
        yield "AlgoPerf's score and profiles: not every task has a target"


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
    """Median seconds to the target, shape (optimizers, tasks), inf for a miss; None if a task has no target."""
    if not all(task.to_target for task in tasks):
        return None
    seconds = [{group.label: group.seconds for group in task.to_target} for task in tasks]
    return np.array([[np.inf if (time := of_task[label]) is None else time for of_task in seconds] for label in labels])


def _profiles(labels: Sequence[str], times: NDArray[np.float64]) -> list[ProfileView]:
    shares = stats.performance_profile(times, RATIOS)
    return [
        ProfileView(label=label, ratios=RATIOS, shares=[float(share) for share in of_label])
        for label, of_label in zip(labels, shares, strict=True)
    ]


def _improvement(a: str, b: str, x: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]]) -> Improvement:
    estimate = stats.probability_of_improvement(x, y)
    return Improvement(a=a, b=b, probability=estimate.value, interval=estimate.interval, cannot_say=estimate.cannot_say)


def _sentence(standings: Sequence[Rank], tasks: int, p: float | None) -> str:
    best = standings[0].mean_rank or 0.0
    first = [standing.label for standing in standings if (standing.mean_rank or 0.0) - best < _SAME_RANK]
    have = "has" if len(first) == 1 else "share"
    rank = f"{best:.1f} among {len(standings)} optimizers"
    text = f"Over {tasks} tasks, {listed(first)} {have} the best mean rank ({rank})"
    if p is None:
        return f"{text}; this is a description, not a test."
    if p < 0.05:
        test = f"Friedman {p_equation(p)}, not part of the family of pairwise tests"
        return f"{text}; the ranks differ significantly ({test})."
    return f"{text}, but the ranks do not differ significantly (Friedman {p_equation(p)})."
