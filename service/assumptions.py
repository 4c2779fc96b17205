"""What a verdict rests on, and whether it held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from service.answers import Assumption, TaskAnswer
from service.plans import Plan
from service.tuning import failed


def assumptions(plan: Plan, answers: Sequence[TaskAnswer], seen_before: tuple[int, int]) -> Iterable[Assumption]:
    """Each assumption, and whether the runs bear it out. `seen_before`: how many of the reported runs had ended before
    the plan was fixed, and how many there are."""
    seen, reported = seen_before
    yield Assumption(
        name="the plan came first",
        holds=not seen,
        text=f"{seen} of {reported} reported runs had ended before this plan was fixed. Who asks again, with more "
        "seeds, because of what they showed, errs more often than stated: plan looks instead."
        if seen
        else "No reported run had ended before the plan was fixed.",
    )
    pairs = [pair for answer in answers for pair in answer.pairs]
    correlations = [pair.detail.correlation for pair in pairs if pair.detail.correlation is not None]
    bought = (
        f"; the correlation between the results of a pair is {fmean(correlations):.2f} on average"
        if correlations
        else ""
    )
    yield Assumption(
        name="paired",
        holds=True,
        text="Runs of one seed start from the same weights and see the same data, augmentation and dropout, whatever "
        f"the optimizer. That equates what goes in, not the trajectories{bought}.",
    )
    skewed = [pair for pair in pairs if pair.detail.skewed]
    yield Assumption(
        name="differences without strong skew",
        holds=None if all(pair.detail.skewed is None for pair in pairs) else not skewed,
        text=f"{len(skewed)} of {len(pairs)} pairs are more skewed than 19 of 20 normal samples"
        + (": look at their permutation test, too." if skewed else "."),
    )
    missing = sum(len(answer.missing) for answer in answers)
    yield Assumption(name="nothing missing", holds=not missing, text=f"{missing} runs are missing or not comparable.")
    diverged = sum(group.diverged for answer in answers for group in answer.groups)
    declared = all(task.diverged_score is not None for task in plan.tasks)
    yield Assumption(
        name="no run diverged",
        holds=not diverged,
        text="No reported run diverged."
        if not diverged
        else f"{diverged} reported runs diverged"
        + ("; each counts with the score that the plan declares." if declared else ": they have no score."),
    )
    if plan.tuning is not None:
        yield from _of_tuning(plan, answers)
    timed = [cost for answer in answers for cost in answer.cost if cost.train_seconds is not None]
    shared = any(cost.shared for cost in timed)
    yield Assumption(
        name="times undisturbed",
        holds=not shared if timed else None,
        text="Jobs ran beside others on the same machine, so times are rough."
        if shared
        else "Each job had its device.",
    )


def _of_tuning(plan: Plan, answers: Sequence[TaskAnswer]) -> Iterable[Assumption]:
    sizes = {one.label: len(one.trials) for one in plan.optimizers if one.is_tuned}
    lost = sum(failed(view) for answer in answers for view in answer.tuning)
    equal = len(set(sizes.values())) == 1 and len(sizes) == len(plan.optimizers) and not lost
    yield Assumption(
        name="equal tuning",
        holds=equal,
        text="Every optimizer had the same number of trials."
        if equal
        else f"Trials of each: {', '.join(f'{label} {size}' for label, size in sizes.items())}; {lost} of them failed; "
        "parameters that were given were not tuned.",
    )
    edges = [f"{view.label} on {answer.label}" for answer in answers for view in answer.tuning if view.at_edge]
    yield Assumption(
        name="best values inside the ranges",
        holds=not edges,
        text="No chosen value is at the edge of what was tried."
        if not edges
        else f"A chosen value is at the edge of what was tried: {'; '.join(edges)}.",
    )
