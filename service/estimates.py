"""How long a run will take, from runs like it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from service import data
from service.answers import Estimate
from service.catalog import Dataset
from service.config import settings
from service.plans import Cell, Plan
from service.spec import TrainSpec

# The median of the latest runs, because a machine that was busy for once should not be believed for ever.
SECONDS_PER_STEP = text(
    """
    SELECT optimizer, form, count(*) AS runs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds / steps) AS seconds_per_step
    FROM (SELECT optimizer,
                 coalesce(spec #>> '{optimizer,params,collision}', spec #>> '{optimizer,params,control}', '') AS form,
                 (summary ->> 'total_seconds')::float8 AS seconds, (summary ->> 'steps')::float8 AS steps
          FROM jobs
          WHERE dataset = :dataset AND model = :model AND status = 'succeeded'
                AND spec -> 'model' = CAST(:model_spec AS jsonb) AND spec -> 'batch_size' = CAST(:batch_size AS jsonb)
                AND (:device = 'auto' OR environment ->> 'device_kind' = :device)
          ORDER BY id DESC LIMIT 500) AS recent
    WHERE steps > 0
    GROUP BY optimizer, form
    """
)


def estimate(session: Session, plan: Plan) -> dict[tuple[int, int], Estimate]:
    """(task, optimizer) -> what one run with the whole budget takes.

    An optimizer that has not run yet on a task is taken to be as slow as the slowest that has.
    """
    found: dict[tuple[int, int], Estimate] = {}
    for number, task in enumerate(plan.tasks):
        spec = TrainSpec.model_validate(plan.spec(Cell("report", number, 0, 0, 0, plan.seeds[0])))
        steps, seconds = _steps(spec, task.spec["budget"]), task.spec["budget"].get("seconds")
        seen = _seen(session, task.spec)
        for position, optimizer in enumerate(plan.optimizers):
            first = optimizer.trials[0]
            key = (optimizer.name, first.get("collision", first.get("control", "")))
            per_step, runs = seen.get(key) or (max((one for one, _ in seen.values()), default=None), 0)
            if seconds is None and per_step is not None and steps is not None:
                found[number, position] = Estimate(
                    task=task.label, optimizer=optimizer.label, seconds=per_step * steps, runs=runs
                )
            else:
                found[number, position] = Estimate(task=task.label, optimizer=optimizer.label, seconds=seconds, runs=0)
    return found


def _seen(session: Session, spec: Mapping[str, Any]) -> dict[tuple[str, str], tuple[float, int]]:
    rows = session.execute(
        SECONDS_PER_STEP,
        {
            "dataset": spec["dataset"]["name"],
            "model": spec["model"]["name"],
            "model_spec": json.dumps(spec["model"]),
            "batch_size": json.dumps(spec["batch_size"]),
            "device": spec["device"],
        },
    )
    return {(row.optimizer, row.form): (row.seconds_per_step, row.runs) for row in rows}


def _steps(spec: TrainSpec, budget: Mapping[str, Any]) -> int | None:
    """Optimizer steps of a budget; None for one in seconds, and where the records are not counted."""
    if budget.get("steps") is not None:
        return int(budget["steps"])
    dataset = spec.dataset
    assert isinstance(dataset, Dataset)
    records = data.train_records(dataset, settings().data)
    if budget.get("epochs") is None or records is None:
        return None
    return int(budget["epochs"]) * -(-records // spec.batch_size)


def cell_seconds(plan: Plan, estimates: Mapping[tuple[int, int], Estimate], cell: Cell) -> float | None:
    """Estimated seconds of one cell."""
    whole = estimates[cell.task, cell.optimizer].seconds
    return None if whole is None else whole * (plan.rungs[cell.rung].share if cell.phase == "tuning" else 1.0)


def most_seconds(plan: Plan, estimates: Mapping[tuple[int, int], Estimate]) -> float | None:
    """Estimated seconds of all runs that there can be; None where nothing like one of them has run yet."""
    total = 0.0
    for task in range(len(plan.tasks)):
        for position, optimizer in enumerate(plan.optimizers):
            whole = estimates[task, position].seconds
            if whole is None:
                return None
            total += whole * len(plan.seeds)
            if optimizer.is_tuned:
                shares = sum(min(rung.trials, len(optimizer.trials)) * rung.share for rung in plan.rungs)
                total += whole * shares * len(plan.tuning_seeds)
    return total
