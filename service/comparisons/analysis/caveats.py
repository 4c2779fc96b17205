"""Sentences that qualify the verdict of a planned comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.comparisons.analysis.grouping import Group
from service.comparisons.analysis.runs import CellRun
from service.comparisons.analysis.tuning import failed
from service.comparisons.answers import TuningView
from service.comparisons.design.plan import Plan
from service.specs.metric_text import Measure
from service.specs.text import counted, listed


def caveats(plan: Plan, task: int, groups: Sequence[Group[CellRun]], tuned: Sequence[TuningView]) -> Iterator[str]:
    """On diverged runs with a declared score, tuning and splits. `groups` are in the order of the plan."""
    yield from _scored(plan, task, groups)
    yield _tuning(plan)
    if failures := [
        f"{count} of the {len(view.trials)} trials of {view.label}" for view in tuned if (count := failed(view))
    ]:
        yield f"Optimizers were not tuned with equal effort, because trials failed: {listed(failures)}."
    if edges := [f"{view.label} ({', '.join(view.at_edge)})" for view in tuned if view.at_edge]:
        yield f"Chosen values are the lowest or highest tried for {listed(edges)}; a wider range may help."
    splits = counted(max((len(group.values) for group in groups), default=0), "split")
    yield {
        "all": f"The result holds for {splits} of the data.",
        "validation": f"The result holds for {splits} into training and validation data, with one test set.",
        "nothing": "The result holds for a single split of the data.",
    }[plan.resplits(task) if "split" in plan.vary else "nothing"]


def _scored(plan: Plan, task: int, groups: Sequence[Group[CellRun]]) -> Iterator[str]:
    score = plan.tasks[task].diverged_score
    if score is None or all(len(group.diverged) == len(group.runs) for group in groups):
        return  # the verdict states that all runs diverged
    for group in groups:
        if group.diverged:
            verb = "counts" if len(group.diverged) == 1 else "count"
            yield (
                f"{len(group.diverged)} of {len(group.runs)} runs of {group.label} diverged and {verb} as "
                f"{Measure(plan.metric).value(score)}."
            )


def _tuning(plan: Plan) -> str:
    untuned = [optimizer.label for optimizer in plan.optimizers if not optimizer.is_tuned]
    if plan.tuning is None:
        return "Parameters were fixed in the request, not tuned."
    sizes = {optimizer.label: len(optimizer.trials) for optimizer in plan.optimizers if optimizer.is_tuned}
    if len(set(sizes.values())) == 1:
        trials = next(iter(sizes.values()))
        text = f"Parameters were chosen on validation data, with {counted(trials, 'trial')} for each tuned optimizer"
    else:
        of_each = ", ".join(f"{label}: {size}" for label, size in sizes.items())
        text = f"Parameters were chosen on validation data, with unequal numbers of trials ({of_each})"
    return text + (f"; the parameters of {listed(untuned)} were fixed in the request." if untuned else ".")
