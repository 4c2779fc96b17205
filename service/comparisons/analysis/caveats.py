"""Sentences that qualify the verdict of a planned comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import CellRun
from service.comparisons.analysis.tuning import failed
from service.comparisons.answers import TrialView, TuningView
from service.comparisons.design.plan import Plan
from service.specs.metric_text import Measure
from service.specs.text import agreeing, counted, listed


def caveats(plan: Plan, task: int, groups: Sequence[Group[CellRun]], tuned: Sequence[TuningView]) -> Iterator[str]:
    """On diverged runs with a declared score, tuning and splits. `groups` are in the order of the plan."""
    yield from _scored(plan, task, groups)
    yield _tuning(plan)
    unchosen = [view.label for view in tuned if view.chosen is not None and _diverged(view.trials[view.chosen])]
    if unchosen:
        yield (
            f"Every trial of {listed(unchosen)} {'with the whole budget ' if len(plan.rungs) > 1 else ''}diverged, so "
            "the first of them was taken, not the best; a search space with lower learning rates may help."
        )
    if failures := [
        f"{count} of {counted(len(view.trials), 'trial')} of {view.label}" for view in tuned if (count := failed(view))
    ]:
        yield f"Optimizers were not tuned with equal effort, because trials failed: {listed(failures)}."
    if edges := [
        f"{listed(view.at_edge)} of {view.label}" for view in tuned if view.at_edge and view.label not in unchosen
    ]:
        yield f"Some chosen values are at the edge of the range tried ({'; '.join(edges)}); a wider range may help."
    splits = counted(max((len(group.values) for group in groups), default=0), "split")
    yield {
        "all": f"The result covers {splits} of the data.",
        "validation": f"The result covers {splits} into training and validation data, with one test set.",
        "nothing": "The result applies to one split of the data only.",
    }[plan.resplits(task) if "split" in plan.vary else "nothing"]


def _diverged(trial: TrialView) -> bool:
    return trial.status == "diverged"


def _scored(plan: Plan, task: int, groups: Sequence[Group[CellRun]]) -> Iterator[str]:
    score = plan.tasks[task].diverged_score
    if score is None or all(len(group.diverged) == len(group.runs) for group in groups):
        return  # the verdict states that all runs diverged
    for group in groups:
        if group.diverged:
            verb = agreeing(len(group.diverged), "counts", "count")
            yield (
                f"{len(group.diverged)} of {counted(len(group.runs), 'run')} of {group.label} diverged and {verb} as "
                f"{Measure(plan.metric).value(score)}."
            )


def _tuning(plan: Plan) -> str:
    untuned = [optimizer.label for optimizer in plan.optimizers if not optimizer.is_tuned]
    if plan.tuning is None:
        return "Hyperparameters were fixed in the request, not tuned."
    sizes = {optimizer.label: len(optimizer.trials) for optimizer in plan.optimizers if optimizer.is_tuned}
    if len(set(sizes.values())) == 1:
        trials = f"{counted(next(iter(sizes.values())), 'trial')} for each tuned optimizer"
    else:
        of_each = ", ".join(f"{label}: {size}" for label, size in sizes.items())
        trials = f"unequal numbers of trials ({of_each})"
    text = f"Hyperparameters were chosen on validation data, with {trials}"
    return text + (f"; the hyperparameters of {listed(untuned)} were fixed in the request." if untuned else ".")
