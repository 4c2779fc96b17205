"""Claims: a worker takes the best queued job and starts or continues it."""

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
from service.specs.engine import ENGINE_VERSION
from service.specs.states import TRANSITIONS, JobStatus
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
    """Step that the preceding attempt reached."""


CLAIM = text(
    # The first job of each user, so that a user's long queue does not block the others; then priority, fair share, age.
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
    """Claim the best queued job that this worker can run, which starts a new attempt. None if no job is eligible."""
    assert JobStatus.RUNNING in TRANSITIONS[JobStatus.QUEUED]
    params = {"worker": worker_id, "has_cuda": has_cuda, "engine": ENGINE_VERSION}
    row = session.execute(CLAIM, params).one_or_none()
    if row is None:
        return None
    if row.attempt > 1:
        checkpoints.take_over(session, row.id, row.attempt)
    record_event(session, row.id, JobStatus.RUNNING)
    return Claim(*row)


WAITS = "waits for its checkpoints"
"""Start of the message of a job that was requeued because its checkpoints were missing."""


CONTINUED, BEGAN_ANEW = "continued after step", "began anew"
"""Start of the note that an attempt writes when it begins to train."""


def begin(session: Session, claim: Claim, step: int, kept_metrics: Collection[str] = ()) -> bool:
    """Continue after `step` (0: from the start), and discard what the preceding attempt stored beyond it.

    Of the points at `step` itself, only `kept_metrics` are kept; the attempt measures the others again.

    Returns False, without any change, if the attempt is superseded.
    """
    if not lock_owned(session, claim.job_id, claim.attempt):
        return False
    write.trim(session, claim.job_id, step, kept_metrics)
    checkpoints.forget_after(session, claim.job_id, step)
    session.execute(update(Job).where(Job.id == claim.job_id).values(step=step))
    record_notes(session, claim.job_id, claim.attempt, [f"{CONTINUED} {step}" if step else BEGAN_ANEW], step)
    return True


def waited_seconds(session: Session, job_id: UUID) -> float:
    """Seconds since a job was first requeued for missing checkpoints, after it last trained."""
    of_job = JobEvent.job_id == job_id
    began = JobEvent.message.startswith(CONTINUED) | (JobEvent.message == BEGAN_ANEW)
    trained = select(func.coalesce(func.max(JobEvent.seq), 0)).where(of_job, began).scalar_subquery()
    since = select(func.min(JobEvent.at)).where(of_job, JobEvent.message.startswith(WAITS), JobEvent.seq > trained)
    return float(session.scalar(select(func.extract("epoch", NOW - since.scalar_subquery()))) or 0.0)


def count_eligible(session: Session, limit: int, *, has_cuda: bool) -> int:
    """Number of queued jobs that a worker could start now, counted up to `limit`."""
    eligible = select(Job.id).where(
        Job.status == JobStatus.QUEUED, Job.available_at <= NOW, Job.engine_version <= ENGINE_VERSION
    )
    eligible = eligible.limit(limit)
    if not has_cuda:
        eligible = eligible.where(Job.needs_cuda.is_(False))
    return session.scalar(select(func.count()).select_from(eligible.subquery())) or 0
