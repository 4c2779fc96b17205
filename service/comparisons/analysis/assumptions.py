"""What a verdict rests on, and whether it held. What no run can show yet is neither held nor broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from service.comparisons.analysis.tuning import FEWEST_VALUES, failed
from service.comparisons.answers import Assumption, PairView, TaskAnswer
from service.comparisons.design.plan import Plan
from service.specs.metric_text import listed, many
from service.stats.paired import FEWEST_FOR_SKEWNESS


def assumptions(
    plan: Plan, answers: Sequence[TaskAnswer], seen_before: tuple[int, int], *, is_over: bool
) -> Iterable[Assumption]:
    """Each assumption, and whether the runs bear it out. `seen_before`: how many of the reported runs had ended before
    the plan was fixed, and how many there are."""
    yet = "" if is_over else " yet"
    pairs = [pair for answer in answers for pair in answer.pairs]
    yield _plan_first(*seen_before, yet)
    yield _paired(pairs)
    yield _unskewed(pairs, yet)
    yield from _of_runs(plan, answers, yet)
    if plan.tuning is not None:
        yield _equal_tuning(plan, answers, yet)
        yield _inside_the_ranges(plan, answers, yet)
    yield _undisturbed(answers, yet)


def _plan_first(seen: int, reported: int, yet: str) -> Assumption:
    if seen:
        text = (
            f"{seen} of {many(reported, 'reported run')} had ended before this plan was fixed. Who asks again, with "
            "more seeds, because of what they showed, errs more often than stated: plan looks instead."
        )
    else:
        text = "No reported run had ended before the plan was fixed." if reported else f"There is no reported run{yet}."
    return Assumption(name="the plan came first", holds=not seen if reported else None, text=text)


def _paired(pairs: Sequence[PairView]) -> Assumption:
    correlations = [pair.detail.correlation for pair in pairs if pair.detail.correlation is not None]
    bought = (
        f"; the correlation between the results of a pair is {fmean(correlations):.2f} on average"
        if correlations
        else ""
    )
    return Assumption(
        name="paired",
        holds=True,
        text="Runs of one seed start from the same weights and see the same data, augmentation and dropout, whatever "
        f"the optimizer. That equates what goes in, not the trajectories{bought}.",
    )


def _unskewed(pairs: Sequence[PairView], yet: str) -> Assumption:
    name = "differences without strong skew"
    looked_at = [pair for pair in pairs if pair.detail.skewed is not None]
    if not looked_at:
        why = f"No pair has{yet} {FEWEST_FOR_SKEWNESS} differences that vary, which it takes to see skew, and a test."
        return Assumption(name=name, holds=None, text=why)
    skewed = sum(bool(pair.detail.skewed) for pair in looked_at)
    of = many(len(looked_at), "pair") + ("" if len(looked_at) == len(pairs) else " that can be looked at")
    verb = "is" if skewed <= 1 else "are"
    return Assumption(
        name=name,
        holds=not skewed,
        text=f"{skewed or 'None'} of {of} {verb} more skewed than 19 of 20 normal samples"
        + (": look at the permutation test, too." if skewed else "."),
    )


def _of_runs(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Iterable[Assumption]:
    nothing = f"No reported run has ended with a result{yet}."
    ended = any(group.n or group.diverged for answer in answers for group in answer.groups)
    missing = sum(len(answer.missing) for answer in answers)
    yield Assumption(
        name="nothing missing",
        holds=False if missing else True if ended else None,
        text=f"{many(missing, 'run')} {'is' if missing == 1 else 'are'} missing or not comparable."
        if missing or ended
        else nothing,
    )
    diverged = sum(group.diverged for answer in answers for group in answer.groups)
    declared = all(task.diverged_score is not None for task in plan.tasks)
    score = "; each counts with the score that the plan declares." if declared else ", without a score."
    yield Assumption(
        name="no run diverged",
        holds=not diverged if ended else None,
        text=f"{many(diverged, 'reported run')} diverged{score}"
        if diverged
        else "No reported run diverged."
        if ended
        else nothing,
    )


def _equal_tuning(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    name = "equal tuning"
    sizes = {one.label: len(one.trials) for one in plan.optimizers if one.is_tuned}
    views = [view for answer in answers for view in answer.tuning]
    lost = sum(failed(view) for view in views)
    given = [one.label for one in plan.optimizers if not one.is_tuned]
    if len(set(sizes.values())) == 1 and not given and not lost:
        if all(trial.status == "waiting" for view in views for trial in view.trials):
            return Assumption(name=name, holds=None, text=f"No trial has ended{yet}.")
        return Assumption(name=name, holds=True, text="Every optimizer had the same number of trials.")
    told = [f"Trials of each: {', '.join(f'{label} {size}' for label, size in sizes.items())}"]
    told += [f"{lost} of them failed"] if lost else []
    told += [f"parameters of {listed(given, most=None)} were given, not tuned"] if given else []
    return Assumption(name=name, holds=False, text=f"{'; '.join(told)}.")


def _inside_the_ranges(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    name = "best values inside the ranges"
    views = [(answer.label, view) for answer in answers for view in answer.tuning]
    if edges := [f"{view.label} on {task} ({listed(view.at_edge, most=None)})" for task, view in views if view.at_edge]:
        text = f"A chosen value is at the edge of what was tried: {'; '.join(edges)}."
        return Assumption(name=name, holds=False, text=text)
    tried = [(optimizer.label, *number) for optimizer in plan.optimizers for number in optimizer.tuned_numbers()]
    few = [f"{label} {len(values)} of {number}" for label, number, values in tried if len(values) < FEWEST_VALUES]
    if few:
        text = (
            f"Too few values to tell: {'; '.join(few)}. The best of few is often at an end; it takes {FEWEST_VALUES}."
        )
    elif not tried:
        text = "No number was tuned, so there are no edges."
    elif any(view.chosen is None for _, view in views):
        text = f"Not everything is chosen{yet}."
    else:
        return Assumption(name=name, holds=True, text="No chosen value is at the edge of what was tried.")
    return Assumption(name=name, holds=None, text=text)


def _undisturbed(answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    timed = [cost for answer in answers for cost in answer.cost if cost.train_seconds is not None]
    shared = any(cost.shared for cost in timed)
    return Assumption(
        name="times undisturbed",
        holds=not shared if timed else None,
        text="Jobs ran beside others on the same machine, so times are rough."
        if shared
        else "Each job had its device."
        if timed
        else f"No reported run has told its time{yet}.",
    )
