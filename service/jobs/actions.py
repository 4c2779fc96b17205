"""Cancel and retry jobs, one or many at a time.

Here and in `service.jobs.transitions` are the only changes of a job's status after its submission: here a job that no
worker runs becomes `cancelled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from service.config import settings
from service.datasets import layouts
from service.errors import Conflict, Forbidden, KotrainError, NotFound
from service.jobs.lookup import get
from service.jobs.submission import check, insert_rows
from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.specs.training import ENGINE_VERSION, TrainSpec
from service.storage.database import NOW
from service.storage.tables import Job, JobEvent, User


def cancel(session: Session, user: User, job_id: UUID) -> Job:
    """End a queued job at once and ask a running one to stop; doing so again changes nothing."""
    job = _owned(session, user, job_id)
    _check_cancel(job)
    cancel_many(session, [job_id])
    session.refresh(job)
    return job


def _check_cancel(job: Job) -> None:
    if JobStatus(job.status) not in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLED):
        raise Conflict(f"job {job.id} has already {job.status}", current_status=job.status)


def cancel_many(session: Session, job_ids: Sequence[UUID]) -> None:
    """End those of these jobs that are queued, ask those that run to stop; in four statements, however many.

    They are locked first: one given back between two statements would escape both.
    """
    assert JobStatus.CANCELLED in TRANSITIONS[JobStatus.QUEUED]
    session.execute(select(Job.id).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update())
    of_these = update(Job).where(Job.id.in_(job_ids)).execution_options(synchronize_session=False)
    ended = {"status": JobStatus.CANCELLED, "reason": Reason.CANCELLED, "finished_at": NOW, "seq": Job.seq + 1}
    rows = session.execute(
        of_these.where(Job.status == JobStatus.QUEUED).values(ended).returning(Job.id, Job.seq, Job.attempt)
    ).all()
    if rows:
        event = {"status": JobStatus.CANCELLED, "reason": Reason.CANCELLED}
        session.execute(
            insert(JobEvent), [{"job_id": row.id, "seq": row.seq, "attempt": row.attempt, **event} for row in rows]
        )
    session.execute(of_these.where(Job.status == JobStatus.RUNNING).values(cancel_requested=True))


def retry(session: Session, user: User, job_id: UUID) -> Job:
    """A new job with the spec of one that failed or was cancelled; asking again answers the same new job."""
    job = _owned(session, user, job_id)
    if JobStatus(job.status) not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise Conflict(
            f"job {job_id} {JobStatus(job.status).clause}; only failed and cancelled jobs can be retried",
            current_status=job.status,
        )
    earlier = session.scalar(select(Job).where(Job.retry_of == job_id))
    if earlier is not None:
        return earlier
    check(session, TrainSpec.model_validate(job.spec))
    what = ("spec", "dataset", "model", "optimizer", "needs_cuda", "tags", "priority", "user_id")
    limits = ("time_limit_seconds", "max_failures", "memory_limit_bytes")
    values = {name: getattr(job, name) for name in (*what, *limits)}
    stamp = layouts.stamp(job.dataset, settings().data)  # the files may be others by now
    fresh = {"engine_version": ENGINE_VERSION, "data_stamp": stamp, "retry_of": job_id}
    (again,) = insert_rows(session, [values | fresh])
    return get(session, again)


@dataclass(frozen=True)
class Outcome:
    """What became of one of many jobs: done, or why not; and the job that a retry made."""

    job: UUID
    done: bool
    detail: str | None = None
    new_job: UUID | None = None


def cancel_each(session: Session, user: User, job_ids: Sequence[UUID]) -> list[Outcome]:
    """`cancel` for each of these; those that may not be are told, and hold up no other."""
    locked = select(Job).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update(of=Job)
    found = {job.id: job for job in session.scalars(locked)}
    outcomes = []
    for job_id in dict.fromkeys(job_ids):
        try:
            _check_cancel(_allowed(user, job_id, found.get(job_id)))
        except KotrainError as refused:
            outcomes.append(Outcome(job_id, False, refused.detail))
        else:
            outcomes.append(Outcome(job_id, True))
    cancel_many(session, [one.job for one in outcomes if one.done])
    return outcomes


def retry_each(session: Session, user: User, job_ids: Sequence[UUID]) -> list[Outcome]:
    """`retry` for each of these; those that may not be are told, and hold up no other."""
    found: dict[UUID, Outcome] = {}
    for job_id in sorted(set(job_ids)):  # as everybody locks them
        try:
            found[job_id] = Outcome(job_id, True, new_job=retry(session, user, job_id).id)
        except KotrainError as refused:  # before anything was written
            found[job_id] = Outcome(job_id, False, refused.detail)
    return [found[job_id] for job_id in dict.fromkeys(job_ids)]


def _owned(session: Session, user: User, job_id: UUID) -> Job:
    """The job, locked, if this user may change it."""
    return _allowed(user, job_id, session.scalar(select(Job).where(Job.id == job_id).with_for_update(of=Job)))


def _allowed(user: User, job_id: UUID, job: Job | None) -> Job:
    """The job that was found under an id, if this user may change it."""
    if job is None:
        raise NotFound(f"job {job_id} not found")
    if job.user_id != user.id and not user.is_admin:
        raise Forbidden(f"job {job_id} belongs to {job.user.name}")
    return job
