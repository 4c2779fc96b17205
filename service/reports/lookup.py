"""Queries on an answer that several formats share."""

from __future__ import annotations

from typing import Any

from service.comparisons.answers import ComparisonAnswer, GroupView, TaskAnswer, TuningView
from service.specs.metric_text import sign


def tuning_of(task: TaskAnswer, label: str) -> TuningView | None:
    """The tuning of a group's parameters; None if they were fixed."""
    return next((view for view in task.tuning if view.label == label), None)


def chosen_params(task: TaskAnswer, group: GroupView) -> dict[str, Any]:
    """All parameters of a group's runs; empty until they are chosen."""
    view = tuning_of(task, group.label)
    if view is not None and view.params is None:
        return {}
    return dict(group.optimizer.get("params", {}))


def planned(answer: ComparisonAnswer, task: TaskAnswer) -> dict[str, Any]:
    """The task in the plan: label, spec and diverged_score."""
    return next((task_plan for task_plan in answer.plan.tasks if task_plan.get("label") == task.label), {})


def lacks_runs(task: TaskAnswer) -> bool:
    """Whether planned runs are missing, so that the task has no verdict."""
    return any(run.phase == "report" for run in task.missing)


def leaders(answer: ComparisonAnswer, task: TaskAnswer) -> list[str]:
    """The best mean and all that are not significantly behind any other; empty unless all planned runs were tested.

    Without a declared score for diverged runs, a group with diverged runs is not a candidate.
    """
    tested = any(pair.p is not None or pair.significant for pair in task.pairs)
    if answer.status == "cancelled" or lacks_runs(task) or not tested:
        return []
    direction = sign(task.metric)
    beaten = {
        pair.b if direction * pair.difference > 0 else pair.a
        for pair in task.pairs
        if pair.significant and pair.difference is not None
    }
    scored = planned(answer, task).get("diverged_score") is not None
    candidates = [group.label for group in task.groups if group.mean is not None and (scored or not group.diverged)]
    return [label for label in candidates if label == candidates[0] or label not in beaten]
