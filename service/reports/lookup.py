"""Look up parts of an answer, for all formats of reports."""

from __future__ import annotations

from typing import Any

from service.comparisons.analysis.decision import Ranking
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
    """Labels of the best mean and of all that no other group beats; empty unless all planned runs were tested."""
    tested = any(pair.p is not None or pair.significant for pair in task.pairs)
    if answer.status == "cancelled" or lacks_runs(task) or not tested:
        return []
    is_scored = planned(answer, task).get("diverged_score") is not None
    ranking = Ranking(sign(task.metric), task.groups, task.pairs)
    return [group.label for group in ranking.leaders(is_scored=is_scored)]
