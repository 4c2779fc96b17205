"""Outcomes: a running job finishes, returns to the queue, or is reclaimed after its lease has expired."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs.claims import Claim
from service.jobs.heartbeats import Batch, is_stale, store_batches
from service.jobs.transitions import change_status, lock_owned
from service.metrics import write
from service.specs.states import JobStatus, Reason
from service.specs.summary import Environment, Summary
from service.storage.database import NOW
from service.storage.tables import Job


def finish(
    session: Session,
    claim: Claim,
    reason: Reason,
    *,
    message: str | None = None,
    summary: Summary | None = None,
    environment: Environment | None = None,
    total_steps: int | None = None,
    batches: Sequence[Batch] = (),
) -> bool:
    """End a running job and store its last batches. Returns False, without writing, if the attempt is superseded."""
    if not lock_owned(session, claim.job_id, claim.attempt):
        return False
    store_batches(session, claim.job_id, claim.attempt, batches)
    ended = change_status(
        session,
        claim.job_id,
        JobStatus.RUNNING,
        reason.status,
        attempt=claim.attempt,
        reason=reason,
        message=message,
        summary=summary.model_dump(mode="json") if summary else None,
        environment=environment,
        total_steps=total_steps,
        finished_at=NOW,
        **({"step": summary.steps} if summary else {}),
    )
    write.merge(session, claim.job_id)
    return ended


def requeue(
    session: Session, claim: Claim, message: str, wait_seconds: float = 0, batches: Sequence[Batch] = ()
) -> bool:
    """Return a job to the queue without counting a failure: its worker shuts down or cannot run it.

    A job that is to be cancelled ends instead. Returns False, without writing, if the attempt is superseded.
    """
    if not lock_owned(session, claim.job_id, claim.attempt):
        return False
    if session.scalar(select(Job.cancel_requested).where(Job.id == claim.job_id)):
        return finish(session, claim, Reason.CANCELLED, message=message, batches=batches)
    store_batches(session, claim.job_id, claim.attempt, batches)
    return change_status(
        session,
        claim.job_id,
        JobStatus.RUNNING,
        JobStatus.QUEUED,
        attempt=claim.attempt,
        message=message,
        worker_id=None,
        available_at=NOW + timedelta(seconds=wait_seconds),
    )


def fail(
    session: Session, job_id: UUID, attempt: int, reason: Reason, message: str, batches: Sequence[Batch] = ()
) -> bool:
    """Count a lost worker or child: requeue the job with a delay, or end it after `max_failures` or a cancellation."""
    owned = select(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    job = session.scalar(owned.with_for_update(of=Job))
    if job is None:
        return False
    store_batches(session, job_id, attempt, batches)
    failures = job.failures + 1
    if job.cancel_requested:
        end, reason = JobStatus.CANCELLED, Reason.CANCELLED
    elif failures >= job.max_failures:
        end = JobStatus.FAILED
    else:
        end = JobStatus.QUEUED
    if end is JobStatus.QUEUED:
        wait = timedelta(seconds=settings().backoff_seconds * 2.0 ** min(failures - 1, 10))
        values: dict[str, Any] = {"worker_id": None, "available_at": NOW + wait}
    else:
        write.merge(session, job_id)
        values = {"finished_at": NOW}
    return change_status(
        session,
        job_id,
        JobStatus.RUNNING,
        end,
        attempt=attempt,
        reason=reason,
        message=message,
        failures=failures,
        **values,
    )


def reclaim_stale(session: Session) -> list[UUID]:
    """Requeue or fail the jobs whose lease has expired; returns their ids."""
    stale = session.execute(
        select(Job.id, Job.attempt, Job.worker_id)
        .where(Job.status == JobStatus.RUNNING, is_stale(Job.heartbeat_at))
        .with_for_update(skip_locked=True)
    ).all()
    for job_id, attempt, worker_id in stale:
        fail(
            session,
            job_id,
            attempt,
            Reason.WORKER_LOST,
            f"worker {worker_id} sent no heartbeat for {settings().lease_seconds:g} s",
        )
    return [row.id for row in stale]
