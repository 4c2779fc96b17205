"""The assumptions of a verdict, and whether they hold; `holds` is None until runs show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from service.comparisons.analysis.tuning import MIN_VALUES, failed
from service.comparisons.answers import Assumption, PairView, TaskAnswer
from service.comparisons.design.plan import Plan
from service.specs.text import counted, listed
from service.stats.paired import MIN_FOR_SKEWNESS


def assumptions(
    plan: Plan, answers: Sequence[TaskAnswer], seen_before: tuple[int, int], *, is_over: bool
) -> Iterable[Assumption]:
    """Each assumption, checked on the runs. `seen_before`: number of final runs that had ended before the plan was
    fixed, and number of all final runs."""
    yet = "" if is_over else " yet"
    pairs = [pair for answer in answers for pair in answer.pairs]
    yield _preregistration(*seen_before, yet)
    yield _pairing(pairs)
    yield _symmetry(pairs, yet)
    yield from _of_runs(plan, answers, yet)
    if plan.tuning is not None:
        yield _equal_tuning(plan, answers, yet)
        yield _chosen_away_from_edge(plan, answers, yet)
    yield _undisturbed_timing(answers, yet)


def _preregistration(seen: int, reported: int, yet: str) -> Assumption:
    if seen:
        text = (
            f"{seen} of {counted(reported, 'final run')} had ended before this plan was fixed. If seeds were added "
            "because of these results, the error rate is higher than stated; plan interim looks instead."
        )
    else:
        text = "No final run had ended before the plan was fixed." if reported else f"No final run exists{yet}."
    return Assumption(name="preregistration", holds=not seen if reported else None, text=text)


def _pairing(pairs: Sequence[PairView]) -> Assumption:
    correlations = [pair.detail.correlation for pair in pairs if pair.detail.correlation is not None]
    mean = f" The mean correlation between paired runs is {fmean(correlations):.2f}." if correlations else ""
    return Assumption(
        name="pairing",
        holds=True,
        text="Runs with the same seed share initial weights, data order, augmentation and dropout; only the optimizer "
        f"differs.{mean}",
    )


def _symmetry(pairs: Sequence[PairView], yet: str) -> Assumption:
    name = "symmetry of differences"
    checked = [pair for pair in pairs if pair.detail.skewed is not None]
    if not checked:
        why = f"no tested pair has {MIN_FOR_SKEWNESS} seeds with varying differences"
        return Assumption(name=name, holds=None, text=f"Skew cannot be checked{yet}: {why}.")
    skewed = sum(bool(pair.detail.skewed) for pair in checked)
    return Assumption(name=name, holds=not skewed, text=_skew_text(skewed, len(checked), len(pairs)))


def _skew_text(skewed: int, checked: int, pairs: int) -> str:
    scope = "" if checked == pairs else " that can be checked"
    more = "more skewed than 95 % of samples from a normal distribution"
    see = "See also the permutation test."
    if checked == 1:
        return f"The one pair{scope} {f'is {more}. {see}' if skewed else 'shows no unusual skew.'}"
    if not skewed:
        return f"None of the {checked} pairs{scope} shows unusual skew."
    expected = f"{0.05 * checked:.1f} expected by chance"
    return f"{skewed} of the {checked} pairs{scope} {'is' if skewed == 1 else 'are'} {more} ({expected}). {see}"


def _of_runs(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Iterable[Assumption]:
    no_result = f"No final run has a result{yet}."
    ended = any(group.n or group.diverged for answer in answers for group in answer.groups)
    missing = sum(len(answer.missing) for answer in answers)
    yield Assumption(
        name="completeness",
        holds=False if missing else True if ended else None,
        text=f"{counted(missing, 'run')} {'is' if missing == 1 else 'are'} missing or not comparable with the others."
        if missing
        else "No run is missing, and all runs are comparable."
        if ended
        else no_result,
    )
    diverged = sum(group.diverged for answer in answers for group in answer.groups)
    declared = all(task.diverged_score is not None for task in plan.tasks)
    subject = ("it is" if declared else "it has") if diverged == 1 else ("each is" if declared else "they have")
    score = f"{subject} {'counted with the score declared in the plan' if declared else 'no score'}"
    yield Assumption(
        name="no divergence",
        holds=not diverged if ended else None,
        text=f"{counted(diverged, 'final run')} diverged; {score}."
        if diverged
        else "No final run diverged."
        if ended
        else no_result,
    )


def _equal_tuning(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    name = "equal tuning"
    sizes = {optimizer.label: len(optimizer.trials) for optimizer in plan.optimizers if optimizer.is_tuned}
    views = [view for answer in answers for view in answer.tuning]
    failures = sum(failed(view) for view in views)
    untuned = [optimizer.label for optimizer in plan.optimizers if not optimizer.is_tuned]
    if len(set(sizes.values())) == 1 and not untuned and not failures:
        if all(trial.status == "waiting" for view in views for trial in view.trials):
            return Assumption(name=name, holds=None, text=f"No trial has ended{yet}.")
        return Assumption(name=name, holds=True, text="Every optimizer had the same number of trials.")
    parts = [f"Trials per task: {', '.join(f'{label}: {size}' for label, size in sizes.items())}"]
    parts += [f"{counted(failures, 'trial')} failed in total"] if failures else []
    parts += [f"hyperparameters of {listed(untuned)} were fixed in the request, not tuned"] if untuned else []
    return Assumption(name=name, holds=False, text=f"{'; '.join(parts)}.")


def _chosen_away_from_edge(plan: Plan, answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    name = "chosen values away from the edge of the range"
    views = [(answer.label, view) for answer in answers for view in answer.tuning]
    if edges := [f"{listed(view.at_edge)} of {view.label} on {task}" for task, view in views if view.at_edge]:
        text = f"Some chosen values are at the edge of the range tried: {'; '.join(edges)}."
        return Assumption(name=name, holds=False, text=text)
    tried = [(optimizer.label, *number) for optimizer in plan.optimizers for number in optimizer.tuned_numbers()]
    few = [
        f"{counted(len(values), 'value')} of {number} for {label}"
        for label, number, values in tried
        if len(values) < MIN_VALUES
    ]
    if few:
        text = (
            f"Not checked, because too few values were tried: {'; '.join(few)}. With fewer than {MIN_VALUES} "
            "values, the best one is often at the edge."
        )
    elif not tried:
        text = "No numeric hyperparameter was tuned."
    elif any(view.chosen is None for _, view in views):
        text = f"Not all hyperparameters have been chosen{yet}."
    else:
        return Assumption(name=name, holds=True, text="No chosen value is at the edge of the range tried.")
    return Assumption(name=name, holds=None, text=text)


def _undisturbed_timing(answers: Sequence[TaskAnswer], yet: str) -> Assumption:
    timed = [cost for answer in answers for cost in answer.cost if cost.train_seconds is not None]
    shared = any(cost.shared for cost in timed)
    return Assumption(
        name="undisturbed timing",
        holds=not shared if timed else None,
        text="Other jobs may have run on the same devices at the same time, so times are approximate."
        if shared
        else "Each job had its device to itself."
        if timed
        else f"No final run has recorded its time{yet}.",
    )
