"""Jobs as their users have them: submitted, listed, cancelled, retried.

Here and in `service.attempts` are the only writers of job status: here it becomes `queued`, and `cancelled` where no
worker is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service import data, queue
from service.config import settings
from service.db import NOW, ring_after_commit
from service.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from service.models import ComparisonCell, Job, JobEvent, User, Worker
from service.schemas import JobRequest
from service.spec import ENGINE_VERSION, TRANSITIONS, JobStatus, Reason, TrainSpec

MOST_BELLS = 64
"""Rung for jobs that are stored together: a slot that is awake goes on until nothing is left."""


def check(session: Session, request: TrainSpec) -> None:
    """Refuse what can be told to fail before it is queued; `Invalid` names the fields."""
    errors = []
    folder = settings().data
    dataset = request.dataset
    if not data.is_present(dataset.name, folder):
        errors.append(
            FieldError(
                "/dataset",
                f"data set '{dataset.name}' is not present; fetch it with: {data.fetch_command(dataset.name)}",
            )
        )
    else:
        records = data.train_records(dataset, folder)
        if records is not None and request.batch_size > records:
            errors.append(
                FieldError(
                    "/batch_size",
                    f"{request.batch_size} is more than the {records} training records of '{dataset.name}'; "
                    f"choose 1 to {records}",
                )
            )
    if request.needs_cuda and _only_cpu_workers(session):
        pointer = "/device" if request.device == "cuda" else "/precision"
        errors.append(
            FieldError(pointer, "no worker of this installation has a GPU; choose device cpu and fp32 or bf16")
        )
    if errors:
        raise Invalid("; ".join(error.detail for error in errors), tuple(errors))


def _only_cpu_workers(session: Session) -> bool:
    """Whether workers are known and none ever had a GPU. None known is no answer: they may come yet."""
    devices = session.scalars(select(Worker.devices)).all()
    return bool(devices) and not any(device["kind"] == "cuda" for owned in devices for device in owned)


def submit(session: Session, user: User, request: JobRequest) -> Job:
    """Store a queued job; the bell rings once it is committed."""
    check(session, request)
    (job_id,) = submit_many(session, user, [request], is_direct=True)
    return get(session, job_id)


def submit_many(session: Session, user: User, requests: Sequence[JobRequest], *, is_direct: bool) -> list[UUID]:
    """Store queued jobs that were checked, in two statements; `is_direct` False: a comparison wants them."""
    stamp = cache(lambda name: data.stamp(name, settings().data))
    return _insert(
        session,
        [
            {
                "user_id": user.id,
                "spec": request.train_spec.model_dump(mode="json"),
                "dataset": request.dataset.name,
                "model": request.model.name,
                "optimizer": request.optimizer.name,
                "needs_cuda": request.needs_cuda,
                "tags": request.tags,
                "priority": request.priority,
                "time_limit_seconds": request.time_limit_seconds,
                "max_failures": request.max_failures,
                "memory_limit_bytes": request.memory_limit_bytes,
                "engine_version": ENGINE_VERSION,
                "is_direct": is_direct,
                "data_stamp": stamp(request.dataset.name),
            }
            for request in requests
        ],
    )


def _insert(session: Session, rows: Sequence[dict[str, Any]]) -> list[UUID]:
    if not rows:
        return []
    ids = [uuid7() for _ in rows]
    queued = {"status": JobStatus.QUEUED, "seq": 1, "attempt": 0, "failures": 0, "cancel_requested": False, "step": 0}
    session.execute(insert(Job), [{"id": id_, **queued, **row} for id_, row in zip(ids, rows, strict=True)])
    events = [{"job_id": id_, "seq": 1, "attempt": 0, "status": JobStatus.QUEUED} for id_ in ids]
    session.execute(insert(JobEvent), events)
    bells = [queue.CUDA_WORKERS if row["needs_cuda"] else queue.ANY_WORKER for row in rows]
    for bell in bells[:MOST_BELLS]:
        ring_after_commit(session, bell)
    return ids


def get(session: Session, job_id: UUID) -> Job:
    """The job, or `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def history(session: Session, job_id: UUID) -> Sequence[JobEvent]:
    """What happened to a job, in order. Raises `NotFound`."""
    get(session, job_id)
    return session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()


@dataclass(frozen=True)
class Filter:
    """Which jobs to list; None means any."""

    status: JobStatus | None = None
    dataset: str | None = None
    model: str | None = None
    optimizer: str | None = None
    user: str | None = None
    tag: tuple[str, str] | None = None
    comparison: UUID | None = None


def find(session: Session, wanted: Filter, limit: int, after: UUID | None) -> tuple[Sequence[Job], bool]:
    """Up to `limit` jobs older than the job `after`, newest first, and whether there are more. Ids sort by age."""
    query = select(Job).order_by(Job.id.desc()).limit(limit + 1)
    for column in ("status", "dataset", "model", "optimizer"):
        value = getattr(wanted, column)
        if value is not None:
            query = query.where(getattr(Job, column) == value)
    if wanted.user is not None:
        query = query.where(Job.user_id == select(User.id).where(User.name == wanted.user).scalar_subquery())
    if wanted.tag is not None:
        query = query.where(Job.tags.contains({wanted.tag[0]: wanted.tag[1]}))
    if wanted.comparison is not None:
        cells = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == wanted.comparison)
        query = query.where(Job.id.in_(cells))
    if after is not None:
        query = query.where(Job.id < after)
    jobs = session.scalars(query).all()
    return jobs[:limit], len(jobs) > limit


def cancel(session: Session, user: User, job_id: UUID) -> Job:
    """End a queued job at once and ask a running one to stop; doing so again changes nothing."""
    job = _owned(session, user, job_id)
    if JobStatus(job.status) not in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLED):
        raise Conflict(f"job {job_id} has ended already ({job.status})", current_status=job.status)
    cancel_many(session, [job_id])
    session.refresh(job)
    return job


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
            f"job {job_id} is {job.status}; only failed and cancelled jobs can be retried", current_status=job.status
        )
    earlier = session.scalar(select(Job).where(Job.retry_of == job_id))
    if earlier is not None:
        return earlier
    check(session, TrainSpec.model_validate(job.spec))
    what = ("spec", "dataset", "model", "optimizer", "needs_cuda", "tags", "priority", "user_id")
    limits = ("time_limit_seconds", "max_failures", "memory_limit_bytes")
    values = {name: getattr(job, name) for name in (*what, *limits)}
    stamp = data.stamp(job.dataset, settings().data)  # the files may be others by now
    fresh = {"engine_version": ENGINE_VERSION, "data_stamp": stamp, "retry_of": job_id}
    (again,) = _insert(session, [values | fresh])
    return get(session, again)


def _owned(session: Session, user: User, job_id: UUID) -> Job:
    """The job, locked, if this user may change it."""
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update(of=Job))
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    if job.user_id != user.id and not user.is_admin:
        raise Forbidden(f"job {job_id} belongs to {job.user.name}")
    return job
