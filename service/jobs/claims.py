"""Claiming: how a worker takes the best queued job and starts or continues it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from service.jobs import checkpoints
from service.jobs.transitions import lock_owned, record_event, record_notes
from service.metrics import write
from service.specs.states import JobStatus
from service.specs.training import ENGINE_VERSION
from service.storage.database import NOW
from service.storage.tables import Job, JobEvent


@dataclass(frozen=True)
class Claim:
    """A job that a worker owns; `attempt` is the fence that all its writes name."""

    job_id: UUID
    attempt: int
    spec: dict[str, Any]
    time_limit_seconds: float | None
    memory_limit_bytes: int | None
    step: int
    """How far the attempt before came."""


CLAIM = text(
    # Each user's head job, so that nobody's long queue hides another's; then priority, fair share, age.
    """
    WITH head AS (
        SELECT job.id
        FROM users CROSS JOIN LATERAL (
            SELECT id, priority, created_at FROM jobs
            WHERE user_id = users.id AND status = 'queued' AND available_at <= clock_timestamp()
                  AND (:has_cuda OR NOT needs_cuda) AND engine_version <= :engine
            ORDER BY priority DESC, created_at, id
            LIMIT 1 FOR UPDATE SKIP LOCKED) AS job
        ORDER BY job.priority DESC,
                 (SELECT count(*) FROM jobs WHERE user_id = users.id AND status = 'running'),
                 job.created_at, job.id
        LIMIT 1)
    UPDATE jobs
    SET status = 'running', attempt = attempt + 1, worker_id = :worker, started_at = clock_timestamp(),
        heartbeat_at = clock_timestamp(), reason = NULL, message = NULL, environment = NULL
    FROM head WHERE jobs.id = head.id
    RETURNING jobs.id, attempt, spec, time_limit_seconds, memory_limit_bytes, step
    """
)


def claim(session: Session, worker_id: str, *, has_cuda: bool) -> Claim | None:
    """The best queued job that this worker can run, now running under a new attempt; None where there is none."""
    asked = {"worker": worker_id, "has_cuda": has_cuda, "engine": ENGINE_VERSION}
    row = session.execute(CLAIM, asked).one_or_none()
    if row is None:
        return None
    if row.attempt > 1:
        checkpoints.take_over(session, row.id, row.attempt)
    record_event(session, row.id, JobStatus.RUNNING)
    return Claim(*row)


WAITS = "waits for its checkpoints"
"""How the message of a job begins that was given back because they were not there."""


CONTINUED, BEGAN_ANEW = "continued after step", "began anew"
"""How it goes on at last."""


def begin(session: Session, claim: Claim, step: int, told: Collection[str] = ()) -> bool:
    """The attempt goes on after `step`, 0 being the beginning: forget what the one before it left beyond that.

    Of the step itself the metrics `told` are known; others that the one before measured of it will come again.

    False, and nothing is done, where the attempt is an old one.
    """
    if not lock_owned(session, claim.job_id, claim.attempt):
        return False
    write.trim(session, claim.job_id, step, told)
    checkpoints.forget_after(session, claim.job_id, step)
    session.execute(update(Job).where(Job.id == claim.job_id).values(step=step))
    record_notes(session, claim.job_id, claim.attempt, [f"{CONTINUED} {step}" if step else BEGAN_ANEW], step)
    return True


def waited_seconds(session: Session, job_id: UUID) -> float:
    """How long a job has been given back for want of its checkpoints, since it trained last."""
    of_it = JobEvent.job_id == job_id
    began = JobEvent.message.startswith(CONTINUED) | (JobEvent.message == BEGAN_ANEW)
    trained = select(func.coalesce(func.max(JobEvent.seq), 0)).where(of_it, began).scalar_subquery()
    since = select(func.min(JobEvent.at)).where(of_it, JobEvent.message.startswith(WAITS), JobEvent.seq > trained)
    return float(session.scalar(select(func.extract("epoch", NOW - since.scalar_subquery()))) or 0.0)


def count_eligible(session: Session, limit: int, *, has_cuda: bool) -> int:
    """How many queued jobs a worker could start now, counted up to `limit`."""
    eligible = select(Job.id).where(
        Job.status == JobStatus.QUEUED, Job.available_at <= NOW, Job.engine_version <= ENGINE_VERSION
    )
    eligible = eligible.limit(limit)
    if not has_cuda:
        eligible = eligible.where(Job.needs_cuda.is_(False))
    return session.scalar(select(func.count()).select_from(eligible.subquery())) or 0
