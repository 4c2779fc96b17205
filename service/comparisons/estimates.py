"""Estimated durations of runs, from earlier runs of the same task and optimizer."""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.orm import Session

from service.comparisons.answers import Estimate
from service.comparisons.design.plan import Cell, Plan
from service.config import settings
from service.datasets import layouts
from service.specs.catalog.datasets import Dataset
from service.specs.training import TrainSpec

# The median of the latest runs, so that a busy machine does not distort estimates for long. The inner query selects ids
# only: the other fields are in JSON documents, of which at most 2000 per data set and model should be read.
SECONDS_PER_STEP = text(
    """
    WITH tasks AS MATERIALIZED (
        SELECT ordinality - 1 AS task, spec #>> '{dataset,name}' AS dataset, spec #>> '{model,name}' AS model,
               spec -> 'model' AS model_spec, spec -> 'batch_size' AS batch_size, spec ->> 'device' AS device
        FROM unnest(CAST(:specs AS jsonb[])) WITH ORDINALITY AS specs(spec, ordinality)),
    recent AS MATERIALIZED (
        SELECT jobs.dataset, jobs.model, jobs.optimizer, spec -> 'model' AS model_spec,
               spec -> 'batch_size' AS batch_size, environment ->> 'device_kind' AS device_kind,
               coalesce(spec #>> '{optimizer,params,collision}', spec #>> '{optimizer,params,control}', '') AS form,
               (summary ->> 'total_seconds')::float8 AS seconds, (summary ->> 'steps')::float8 AS steps
        FROM (SELECT DISTINCT dataset, model FROM tasks) AS kind
        CROSS JOIN LATERAL (
            SELECT id FROM jobs
            WHERE jobs.dataset = kind.dataset AND jobs.model = kind.model AND status = 'succeeded'
            ORDER BY id DESC LIMIT 2000) AS latest
        JOIN jobs ON jobs.id = latest.id)
    SELECT task, optimizer, form, count(*) AS runs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds / steps) AS seconds_per_step
    FROM tasks JOIN recent USING (dataset, model, model_spec, batch_size)
    WHERE steps > 0 AND (device = 'auto' OR device_kind = device)
    GROUP BY task, optimizer, form
    """
)

Seen = dict[tuple[str, str], tuple[float, int]]
"""(optimizer, form) -> median seconds per step, and number of runs."""


def estimate(session: Session, plan: Plan) -> dict[tuple[int, int], Estimate]:
    """(task, optimizer) -> duration of one run with the whole budget.

    An optimizer without runs on a task is assumed to be as slow as the slowest optimizer with runs.
    """
    durations: dict[tuple[int, int], Estimate] = {}
    seen_by_task = _seen(session, plan)
    for number, task in enumerate(plan.tasks):
        spec = TrainSpec.model_validate(plan.spec(Cell("report", number, 0, 0, 0, plan.seeds[0])))
        assert isinstance(spec.dataset, Dataset)
        steps = spec.budget.steps_on(layouts.train_records(spec.dataset, settings().data), spec.batch_size)
        seconds = spec.budget.seconds
        seen = seen_by_task.get(number, {})
        for position, optimizer in enumerate(plan.optimizers):
            first = optimizer.trials[0]
            key = (optimizer.name, first.get("collision", first.get("control", "")))
            per_step, runs = seen.get(key) or (max((per_step for per_step, _ in seen.values()), default=None), 0)
            if seconds is None and per_step is not None and steps is not None:
                durations[number, position] = Estimate(
                    task=task.label, optimizer=optimizer.label, seconds=per_step * steps, runs=runs
                )
            else:
                durations[number, position] = Estimate(
                    task=task.label, optimizer=optimizer.label, seconds=seconds, runs=0
                )
    return durations


def _seen(session: Session, plan: Plan) -> dict[int, Seen]:
    """Task -> earlier runs with its data set, model and batch size."""
    seen: dict[int, Seen] = {}
    for row in session.execute(SECONDS_PER_STEP, {"specs": [json.dumps(task.spec) for task in plan.tasks]}):
        seen.setdefault(row.task, {})[row.optimizer, row.form] = (row.seconds_per_step, row.runs)
    return seen
