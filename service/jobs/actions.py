"""Cancel and retry jobs, one or several at a time; rename and archive them.

All changes of a job's status after its submission are made here, where a queued job becomes `cancelled`, in
`service.jobs.claims`, where it becomes `running`, and in `service.jobs.transitions`, where a running job ends or
returns to the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from service.config import settings
from service.datasets import layouts
from service.errors import Conflict, Forbidden, KotrainError, NotFound
from service.jobs.lookup import get
from service.jobs.submission import check, insert_rows
from service.specs.bodies import Changes
from service.specs.engine import ENGINE_VERSION
from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.specs.training import TrainSpec
from service.storage.database import NOW
from service.storage.tables import Job, JobEvent, User
from service.validation import field_errors


def cancel(session: Session, user: User, job_id: UUID) -> Job:
    """Cancel a queued job immediately, or ask a running one to stop. Idempotent."""
    job = _owned(session, user, job_id)
    _check_cancel(job)
    cancel_many(session, [job_id])
    session.refresh(job)
    return job


def _check_cancel(job: Job) -> None:
    if JobStatus(job.status) not in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLED):
        raise Conflict(f"job {job.id} has already {job.status}", current_status=job.status)


def cancel_many(session: Session, job_ids: Sequence[UUID]) -> None:
    """Cancel the queued jobs among these and ask the running ones to stop, in four statements.

    They are locked first: a job that is requeued between two statements would escape both.
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


def change(session: Session, user: User, job_id: UUID, changes: Changes) -> Job:
    """Change the name, tags or note of a job, archive it or bring it back. Raises Conflict if it is to run yet."""
    job = _owned(session, user, job_id)
    if changes.archive and not JobStatus(job.status).is_final:
        raise Conflict(f"job {job_id} is {job.status}: cancel it first, to archive it", current_status=job.status)
    for name, value in changes.values.items():
        setattr(job, name, value)
    if changes.archive is not None and changes.archive != (job.archived_at is not None):
        job.archived_at = session.scalar(select(func.clock_timestamp())) if changes.archive else None
    session.flush()
    return job


def retry(session: Session, user: User, job_id: UUID) -> Job:
    """Submit the spec of a failed or cancelled job as a new job; repeated calls return the same new job."""
    job = _owned(session, user, job_id)
    if JobStatus(job.status) not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise Conflict(
            f"job {job_id} {JobStatus(job.status).clause}; only failed and cancelled jobs can be retried",
            current_status=job.status,
        )
    earlier = session.scalar(select(Job).where(Job.retry_of == job_id))
    if earlier is not None:
        return earlier
    try:
        spec = TrainSpec.model_validate(job.spec)
    except ValidationError as error:  # stored by another version, or with a plug-in that is no longer installed
        problem = field_errors(error, job.spec)[0].detail
        raise Conflict(f"job {job_id} cannot be repeated: {problem}", current_status=job.status) from None
    check(session, spec)
    request = ("spec", "dataset", "model", "optimizer", "needs_cuda", "tags", "priority", "user_id")
    limits = ("time_limit_seconds", "max_failures", "memory_limit_bytes")
    values = {name: getattr(job, name) for name in (*request, *limits)}
    stamp = layouts.stamp(job.dataset, settings().data)  # the files may have changed
    fresh = {"engine_version": ENGINE_VERSION, "data_stamp": stamp, "retry_of": job_id}
    (new_id,) = insert_rows(session, [values | fresh])
    return get(session, new_id)


@dataclass(frozen=True)
class ActionResult:
    """Result of an action on one of several jobs: done or refused, and the job that a retry created."""

    job: UUID
    done: bool
    detail: str | None = None
    new_job: UUID | None = None


def cancel_each(session: Session, user: User, job_ids: Sequence[UUID]) -> list[ActionResult]:
    """`cancel` each of these jobs. If it is refused for one job, the others are not affected."""
    locked = select(Job).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update(of=Job)
    jobs = {job.id: job for job in session.scalars(locked)}
    results = []
    for job_id in dict.fromkeys(job_ids):
        try:
            _check_cancel(_allowed(user, job_id, jobs.get(job_id)))
        except KotrainError as refused:
            results.append(ActionResult(job_id, False, refused.detail))
        else:
            results.append(ActionResult(job_id, True))
    cancel_many(session, [result.job for result in results if result.done])
    return results


def retry_each(session: Session, user: User, job_ids: Sequence[UUID]) -> list[ActionResult]:
    """`retry` each of these jobs. If it is refused for one job, the others are not affected."""
    results: dict[UUID, ActionResult] = {}
    for job_id in sorted(set(job_ids)):  # the order in which all transactions lock jobs
        try:
            results[job_id] = ActionResult(job_id, True, new_job=retry(session, user, job_id).id)
        except KotrainError as refused:  # raised before any write
            results[job_id] = ActionResult(job_id, False, refused.detail)
    return [results[job_id] for job_id in dict.fromkeys(job_ids)]


def _owned(session: Session, user: User, job_id: UUID) -> Job:
    """The job, locked. Raises NotFound and Forbidden."""
    return _allowed(user, job_id, session.scalar(select(Job).where(Job.id == job_id).with_for_update(of=Job)))


def _allowed(user: User, job_id: UUID, job: Job | None) -> Job:
    """The job with this id. Raises NotFound if it is None, Forbidden if the user may not change it."""
    if job is None:
        raise NotFound(f"job {job_id} not found")
    if job.user_id != user.id and not user.is_admin:
        raise Forbidden(f"job {job_id} belongs to {job.user.name}")
    return job
