"""Warnings of a plan that is valid, but probably not what its author means."""

from __future__ import annotations

from collections.abc import Iterator

from service.comparisons.design.checks import Records
from service.comparisons.design.plan import Plan, scaled
from service.comparisons.design.requests import ComparisonRequest, TaskRequest
from service.specs.training import Budget


def warnings(request: ComparisonRequest, plan: Plan, records: Records) -> Iterator[str]:
    """Sentences on runs that end within their warm-up, one per task."""
    for task, planned in zip(request.tasks, plan.tasks, strict=True):
        if task.schedule.params.warmup_steps and (warning := _cut_warmup(task, plan, records)):
            where = f"{planned.label}: " if len(plan.tasks) > 1 else ""
            yield f"{where}{warning}." if where else f"{warning[0].upper()}{warning[1:]}."


def _cut_warmup(task: TaskRequest, plan: Plan, records: Records) -> str | None:
    """The warning of a task: on its final runs, or else on the trials of the first rung."""
    available, limit = records(task.dataset.name), getattr(task.dataset.params, "limit", None)
    used = min((number for number in (available, limit) if number is not None), default=None)
    if final := task.cut_warmup(task.budget.steps_on(used, task.batch_size), "every run"):
        return final
    if len(plan.rungs) < 2:
        return None
    first = Budget.model_validate(scaled(task.budget.model_dump(), plan.rungs[0].share))
    return task.cut_warmup(first.steps_on(used, task.batch_size), "a trial of successive halving's first rung")
