"""Parts of a synthetic answer that follow from its scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from service.comparisons.answers import (
    AcrossTasks,
    Assumption,
    CostView,
    GroupView,
    Improvement,
    PairDetail,
    PairView,
    ProfileView,
    Rank,
    TaskAnswer,
    VerdictView,
)

Scores = Mapping[int, float]
"""Seed -> score of an optimizer on a task."""


def pair_view(labels: Sequence[str], scores: Sequence[Scores], a: int, b: int, pairs: int) -> PairView:
    """The paired t test of two optimizers of a task, adjusted for `pairs` tests."""
    x, y = scores[a], scores[b]
    seeds = sorted(x.keys() & y.keys())
    first, second = np.array([x[seed] for seed in seeds]), np.array([y[seed] for seed in seeds])
    n, differences = len(seeds), first - second
    is_tested = n > 2 and float(differences.std()) > 0
    p = float(stats.ttest_rel(first, second).pvalue) if is_tested else None
    sd = float(differences.std(ddof=1)) if n > 1 else None
    mean = float(differences.mean()) if n else None
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) if is_tested and sd is not None else None
    adjusted = None if p is None else min(1.0, p * pairs)
    return PairView(
        a=labels[a],
        b=labels[b],
        n=n,
        difference=mean,
        interval=None if mean is None or half is None else (mean - half, mean + half),
        p=p,
        p_adjusted=adjusted,
        significant=adjusted is not None and adjusted < 0.05,
        seeds_needed=14 + a + b if adjusted is not None and adjusted >= 0.05 else None,
        detail=PairDetail(
            sd=sd,
            correlation=float(np.corrcoef(first, second)[0, 1]) if is_tested and first.std() and second.std() else None,
            skewed=False if is_tested else None,
            p_permutation=None,
            p_wilcoxon=None if n < 6 else 0.04,
            cliffs_delta=float(np.sign(first[:, None] - second[None, :]).mean()) if n else None,
            cannot_say=None,
            permutation_cannot_say=None,
            wilcoxon_cannot_say=None,
        ),
        cannot_say=None
        if is_tested
        else f"a test needs 3 seeds that both have, and there {'is' if n == 1 else 'are'} {n}",
    )


def verdict_view(groups: list[GroupView], pairs: list[PairView]) -> VerdictView:
    """The verdict on groups, which are sorted by their mean."""
    best = groups[0]
    own_pairs = [pair for pair in pairs if best.label in (pair.a, pair.b)]
    undecided = [pair.b if pair.a == best.label else pair.a for pair in own_pairs if not pair.significant]
    if best.mean is None:
        return VerdictView(decided=False, best=None, text="There is no finished run.")
    if not undecided:
        text = f"{best.label} is best, with a mean test accuracy of {100 * best.mean:.1f} % over {best.n} seeds."
    else:
        text = f"{best.label} and {undecided[0]} cannot be distinguished with {best.n} seeds."
    text += " Parameters were chosen on validation data, with 8 trials for each tuned optimizer; the "
    text += "parameters of rmsprop were fixed in the request."
    return VerdictView(
        decided=not undecided,
        best=None if undecided else best.label,
        text=f"{text} The result applies to one split of the data only.",
    )


def cost_view(labels: Sequence[str], position: int) -> CostView:
    """Made-up times and memory of the optimizer at this position."""
    times = [2.5 * (1 + 0.3 * (index % 5)) for index in range(len(labels))]
    return CostView(
        label=labels[position],
        train_seconds=times[position] * 0.69,
        milliseconds_per_step=times[position],
        ratio=times[position] / min(times),
        peak_bytes=41.3e6 + 2.1e6 * position,
        optimizer_state_bytes=670_000.0 * (position % 3),
        parameters=85_002,
        shared=position % 2 == 1,
    )


def cross_task_view(
    labels: Sequence[str],
    scores: Sequence[Sequence[Scores]],
    tasks: Sequence[TaskAnswer],
    *,
    is_loss: bool,
    critical_difference: float | None,
) -> AcrossTasks:
    """Ranks, probabilities of improvement and profiles; `scores`: per task and optimizer."""
    ranks = [
        _rank(label, position, [of_task[position] for of_task in scores], tasks)
        for position, label in enumerate(labels)
    ]
    ranks.sort(key=lambda rank: rank.mean_rank or 0)
    ratios = [round(1 + step / 20, 2) for step in range(61)]
    is_descriptive = critical_difference is None
    best = ranks[0]
    return AcrossTasks(
        tasks=len(tasks),
        ranks=ranks,
        improvements=[
            _improvement(labels, scores, a, b, -1 if is_loss else 1)
            for a, b in itertools.combinations(range(len(labels)), 2)
        ],
        profiles=[
            ProfileView(
                label=label,
                ratios=ratios,
                shares=[min(1.0, max(0.0, (ratio - 1) * 0.8 + 1 - position / len(labels))) for ratio in ratios],
            )
            for position, label in enumerate(labels)
        ],
        friedman_p=None if is_descriptive else 0.012,
        critical_difference=critical_difference,
        sentences=[
            f"Over {len(tasks)} tasks, {best.label} has the best mean rank ({best.mean_rank:.1f} among "
            f"{len(labels)} optimizers)."
        ],
        cannot_say=["Friedman's test: it needs 8 tasks or more"] if is_descriptive else [],
    )


def _rank(label: str, position: int, scores: Sequence[Scores], tasks: Sequence[TaskAnswer]) -> Rank:
    """`scores`: of the optimizer, per task."""
    values = np.array([value for of_task in scores for value in of_task.values()])
    ranks = [[group.label for group in task.groups].index(label) + 1 for task in tasks]
    iqm = float(stats.trim_mean(values, 0.25)) if len(values) else None
    return Rank(
        label=label,
        mean_rank=float(np.mean(ranks)),
        iqm=iqm,
        iqm_interval=None if iqm is None else (iqm - 0.002, iqm + 0.0015),
        iqm_cannot_say=None,
        algoperf=max(0.0, 0.97 - 0.1 * position),
    )


def _improvement(labels: Sequence[str], scores: Sequence[Sequence[Scores]], a: int, b: int, sign: int) -> Improvement:
    """`sign`: -1 for losses."""
    shares = []
    for of_task in scores:
        first, second = (np.array([*of_task[position].values()]) for position in (a, b))
        shares.append((sign * (first[:, None] - second[None, :]) > 0).mean())
    p = float(np.mean(shares))
    return Improvement(
        a=labels[a],
        b=labels[b],
        probability=p,
        interval=(max(0.0, p - 0.2), min(1.0, p + 0.17)),
        cannot_say=None,
    )


def assumptions(*, any_diverged: bool) -> list[Assumption]:
    """Assumptions that hold, that do not hold and that are unknown."""
    return [
        Assumption(name="pairing", holds=True, text="Runs of one seed start from the same weights."),
        Assumption(name="symmetry of differences", holds=None, text="0 of 12 pairs are more skewed."),
        Assumption(name="no divergence", holds=not any_diverged, text="Each counts with its score."),
        Assumption(name="undisturbed timing", holds=False, text="Jobs ran beside others, so times are rough."),
    ]
