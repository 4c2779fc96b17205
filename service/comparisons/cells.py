"""The planned runs of a comparison and their jobs: reuse existing jobs, submit the others, load results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, text, tuple_
from sqlalchemy.orm import Session

from service.comparisons.analysis.runs import CellRun
from service.comparisons.design.plan import Cell, Plan
from service.comparisons.design.results import Result
from service.config import settings
from service.datasets import layouts
from service.jobs import submission
from service.jobs.requests import JobRequest
from service.jobs.workers import has_cuda, is_up
from service.specs.engine import ENGINE_VERSION
from service.specs.states import JobStatus, Reason
from service.specs.summary import TargetHit
from service.storage.tables import Comparison, ComparisonCell, Job, Worker

KEY = ("phase", "task", "optimizer", "trial", "rung", "seed")


# Selects single fields, because parsing 400 complete environments would take most of the time.
LOAD = text(
    """
    SELECT phase, task, optimizer, trial, rung, seed, job_id, is_reused, users.name AS owner, job.status, job.reason,
           job.message, job.finished_at,
           (summary -> 'metrics' ->> :metric)::float8 AS value,
           (summary -> 'metrics' ->> 'val_accuracy')::float8 AS val_accuracy,
           (summary -> 'metrics' ->> 'val_loss')::float8 AS val_loss,
           (summary ->> 'train_seconds')::float8 AS train_seconds,
           (summary ->> 'total_seconds')::float8 AS total_seconds,
           (summary ->> 'steps')::bigint AS steps,
           (summary ->> 'parameters')::bigint AS parameters,
           (summary -> 'memory')::text AS memory, (summary -> 'target')::text AS hit,
           jsonb_build_array(environment -> 'device_kind', environment -> 'device_name', environment -> 'torch',
                             environment -> 'data_hash', environment -> 'engine_version')::text AS environment,
           coalesce(workers.slots > greatest(1, jsonb_array_length(workers.devices) - 1), false) AS is_shared
    FROM comparison_cells AS cell
    JOIN (SELECT id, user_id, worker_id, status, reason, message, finished_at, summary, environment FROM jobs) AS job
         ON job.id = cell.job_id
    JOIN users ON users.id = job.user_id
    LEFT JOIN workers ON workers.id = job.worker_id
    WHERE comparison_id = :comparison
    ORDER BY phase DESC, task, optimizer, trial, rung, seed
    """
)
ENVIRONMENT = ("device_kind", "device_name", "torch", "data_hash", "engine_version")


def load(session: Session, comparison: Comparison, plan: Plan) -> list[CellRun]:
    """All cells with a job, tuning before reporting."""
    parsed = cache(json.loads)  # most runs share one text
    rows = session.execute(LOAD, {"comparison": comparison.id, "metric": plan.metric})
    return [
        CellRun(
            cell=Cell(*row[:6]),
            job=row.job_id,
            user=row.owner,
            is_reused=row.is_reused,
            result=Result(
                JobStatus(row.status),
                Reason(row.reason) if row.reason else None,
                row.value,
                row.val_accuracy,
                row.val_loss,
            ),
            message=row.message,
            train_seconds=row.train_seconds,
            total_seconds=row.total_seconds,
            steps=row.steps,
            parameters=row.parameters,
            memory=parsed(row.memory or "null") or {},
            hit=TargetHit.model_validate(hit) if (hit := parsed(row.hit or "null")) else None,
            environment=dict(zip(ENVIRONMENT, parsed(row.environment), strict=True)),
            finished_at=row.finished_at,
            is_shared=row.is_shared,
        )
        for row in rows
    ]


# --- find or submit --------------------------------------------------------------------------------------------------

# Finished jobs before unfinished ones, oldest first, so that a repeated query finds the same jobs.
FIND = text(
    """
    SELECT DISTINCT ON (number) number, jobs.id
    FROM (SELECT ordinality AS number, kotrain_fingerprint(spec) AS fingerprint, spec ->> 'device' AS device,
                 CAST(:stamps AS jsonb) ->> (spec #>> '{dataset,name}') AS stamp, spec -> 'target' AS target
          FROM jsonb_array_elements(CAST(:specs AS jsonb)) WITH ORDINALITY AS specs(spec, ordinality)) AS wanted
    JOIN jobs ON jobs.fingerprint = wanted.fingerprint AND jobs.data_stamp = wanted.stamp
         AND wanted.target IN ('null', jobs.spec -> 'target')
    WHERE (status IN ('queued', 'running') AND NOT cancel_requested
           AND (jobs.spec ->> 'device' = wanted.device OR (jobs.spec ->> 'device' = 'auto' AND wanted.device = :auto)))
       OR ((status = 'succeeded' OR reason = 'diverged')
           AND (environment ->> 'engine_version')::int = :engine_version
           AND environment ->> 'torch' = ANY(:torches) AND wanted.device IN ('auto', environment ->> 'device_kind'))
    ORDER BY number, status IN ('queued', 'running'), jobs.id
    """
)


def find(session: Session, plan: Plan, cells: Sequence[Cell]) -> dict[Cell, UUID]:
    """Existing jobs for these cells, of any user: with the same spec, data, engine, torch and kind of device.

    If the task has a target, they recorded hits of the same target.
    """
    reusable = [cell for cell in cells if plan.reuses(cell.task)]
    if not reusable:
        return {}
    names = {plan.tasks[cell.task].spec["dataset"]["name"] for cell in reusable}
    rows = session.execute(
        FIND,
        {
            "specs": json.dumps(list(plan.specs(reusable))),  # as an array of texts, it would take ten times as long
            "stamps": json.dumps({name: layouts.stamp(name, settings().data) for name in names}),
            "engine_version": ENGINE_VERSION,
            "torches": _torches(session),
            "auto": _auto(session),
        },
    )
    return {reusable[row.number - 1]: row.id for row in rows}


def _torches(session: Session) -> list[str]:
    """Current torch versions: those of live workers, or that of the last finished job."""
    up = select(Worker.torch).where(is_up(), Worker.torch.is_not(None)).distinct()
    last = select(Job.environment["torch"].as_string()).where(Job.environment.is_not(None))
    last = last.order_by(Job.finished_at.desc().nulls_last()).limit(1)
    return [name for name in session.scalars(up).all() or session.scalars(last).all() if name]


def _auto(session: Session) -> str | None:
    """The device that `auto` selects on every live worker; None if it depends on the worker."""
    kinds = {has_cuda(devices) for devices in session.scalars(select(Worker.devices).where(is_up()))}
    return None if len(kinds) != 1 else "cuda" if kinds.pop() else "cpu"


def provide(session: Session, comparison: Comparison, plan: Plan, cells: Sequence[Cell]) -> None:
    """Assign a job to each cell: an existing one or a new one. Cells with equal specs share it."""
    existing = find(session, plan, cells)
    own_jobs = _own_jobs(session, comparison)
    fresh: dict[str, list[Cell]] = {}
    missing = [cell for cell in cells if cell not in existing]
    for cell, spec in zip(missing, plan.specs(missing), strict=True):
        fresh.setdefault(json.dumps(spec, sort_keys=True), []).append(cell)
    requests = [_request(plan, tags(comparison), json.loads(spec)) for spec in fresh]
    submitted = submission.submit_many(session, comparison.user, requests, is_direct=False)
    new = {cell: job for job, alike in zip(submitted, fresh.values(), strict=True) for cell in alike}
    session.execute(
        insert(ComparisonCell),
        [
            {
                "comparison_id": comparison.id,
                **cell._asdict(),
                "job_id": (existing | new)[cell],
                "is_reused": cell in existing and existing[cell] not in own_jobs,
            }
            for cell in cells
        ],
    )


def _own_jobs(session: Session, comparison: Comparison) -> set[UUID]:
    """Jobs that this comparison submitted. Optimizers share jobs if tuning chooses another one's fixed parameters."""
    jobs = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == comparison.id)
    return set(session.scalars(jobs.where(ComparisonCell.is_reused.is_(False))))


def _request(plan: Plan, labels: Mapping[str, str], spec: Mapping[str, Any]) -> JobRequest:
    return JobRequest.model_validate(
        {
            **spec,
            "tags": labels,
            "priority": plan.priority,
            "time_limit_seconds": plan.time_limit_seconds,
            "max_failures": plan.max_failures,
        }
    )


def forget(session: Session, comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Remove the jobs of these cells, so that others can be assigned."""
    if cells:
        key = tuple_(*(getattr(ComparisonCell, name) for name in KEY))
        session.execute(
            delete(ComparisonCell).where(
                ComparisonCell.comparison_id == comparison.id, key.in_([tuple(c) for c in cells])
            )
        )


def lost(runs: Sequence[CellRun]) -> Iterator[Cell]:
    """Cells whose reused job ended without a result, so that the comparison submits its own."""
    for run in runs:
        if run.is_reused and run.result.failed:
            yield run.cell


# Excludes jobs that were submitted directly, and those that another running comparison needs.
UNNEEDED = text(
    """
    SELECT DISTINCT jobs.id FROM comparison_cells AS mine JOIN jobs ON jobs.id = mine.job_id
    WHERE mine.comparison_id = :comparison AND status IN ('queued', 'running') AND NOT is_direct
      AND NOT EXISTS (SELECT FROM comparison_cells AS other JOIN comparisons ON comparisons.id = other.comparison_id
                      WHERE other.job_id = jobs.id AND other.comparison_id <> :comparison
                            AND comparisons.status = 'running')
    """
)


def unneeded(session: Session, comparison: Comparison) -> Sequence[UUID]:
    """Unfinished jobs that only this comparison needs."""
    return session.scalars(UNNEEDED, {"comparison": comparison.id}).all()


# --- the archive -----------------------------------------------------------------------------------------------------

# Jobs that its owner did not submit directly and that no other comparison outside the archive uses.
OWN = text(
    """
    SELECT jobs.id FROM jobs
    WHERE NOT is_direct AND user_id = :user AND archived_at IS NULL
      AND id IN (SELECT job_id FROM comparison_cells WHERE comparison_id = :comparison)
      AND NOT EXISTS (SELECT FROM comparison_cells AS other JOIN comparisons ON comparisons.id = other.comparison_id
                      WHERE other.job_id = jobs.id AND other.comparison_id <> :comparison
                            AND comparisons.archived_at IS NULL)
    ORDER BY jobs.id FOR UPDATE OF jobs
    """
)
# Jobs that were archived with it or with another comparison that uses them, not by themselves.
ARCHIVED_WITH = text(
    """
    SELECT id FROM jobs
    WHERE id IN (SELECT job_id FROM comparison_cells WHERE comparison_id = :comparison)
      AND archived_at IN (SELECT comparisons.archived_at
                          FROM comparison_cells AS other JOIN comparisons ON comparisons.id = other.comparison_id
                          WHERE other.job_id = jobs.id)
    ORDER BY id FOR UPDATE
    """
)


# An array, because a statement has at most 65,535 parameters.
ARCHIVE = text("UPDATE jobs SET archived_at = :at WHERE id = ANY(CAST(:jobs AS uuid[]))")


def archive(session: Session, comparison: Comparison, at: datetime | None) -> None:
    """Archive the jobs that only this comparison needs at the time `at`; None: bring back those archived with it."""
    parameters = {"comparison": comparison.id, "user": comparison.user_id}
    jobs = session.scalars(ARCHIVED_WITH if at is None else OWN, parameters).all()
    session.execute(ARCHIVE, {"at": at, "jobs": list(jobs)})


def tags(comparison: Comparison) -> dict[str, str]:
    """The tags of a comparison: those of its plan, until its owner changes them."""
    of_plan: dict[str, str] = comparison.plan.get("tags", {})
    return of_plan if comparison.tags is None else comparison.tags
