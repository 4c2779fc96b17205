"""Jobs as their users have them: submitted, listed, cancelled, retried.

Here and in `service.jobs.transitions` are the only writers of job status: here it becomes `queued`, and `cancelled`
where no worker is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, cast, func, insert, or_, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service.config import settings
from service.datasets import layouts as data
from service.datasets.locks import hold_dataset
from service.errors import Conflict, FieldError, Forbidden, Invalid, KotrainError, NotFound
from service.jobs import queue
from service.jobs.schemas import JobRequest
from service.jobs.workers import has_cuda
from service.specs.catalog.datasets import is_own
from service.specs.training import ENGINE_VERSION, TRANSITIONS, JobStatus, Reason, TrainSpec
from service.storage.session import NOW, call_after_commit
from service.storage.tables import ComparisonCell, Job, JobEvent, User, Worker

MOST_BELLS = 64
"""Rung for jobs that are stored together: a slot that is awake goes on until nothing is left."""


def check(session: Session, request: TrainSpec) -> None:
    """Refuse what can be told to fail before it is queued; `Invalid` names the fields."""
    errors = []
    folder = settings().data
    dataset = request.dataset
    if is_own(dataset.name):
        hold_dataset(session, dataset.name)
    if not data.is_present(dataset.name, folder):
        errors.append(FieldError("/dataset", data.absence(dataset.name, folder)))
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
    return bool(devices) and not any(map(has_cuda, devices))


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
        call_after_commit(session, partial(queue.ring, bell))
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

    statuses: Collection[JobStatus] | None = None
    dataset: str | None = None
    model: str | None = None
    optimizer: str | None = None
    user: str | None = None
    tag: tuple[str, str] | None = None
    comparison: UUID | None = None
    search: str | None = None
    """Somewhere in the data set, model, optimizer, user or the value of a tag, in letters of either case."""

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """All of which have to hold."""
        found: list[ColumnElement[bool]] = []
        if self.statuses is not None:
            found.append(Job.status.in_(self.statuses))
        for column in (Job.dataset, Job.model, Job.optimizer):
            if (value := getattr(self, column.key)) is not None:
                found.append(column == value)
        if self.user is not None:
            found.append(Job.user_id == select(User.id).where(User.name == self.user).scalar_subquery())
        if self.tag is not None:
            found.append(Job.tags.contains({self.tag[0]: self.tag[1]}))
        if self.comparison is not None:
            cells = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == self.comparison)
            found.append(Job.id.in_(cells))
        if self.search:
            found.append(_says(self.search))
        return found


def _says(words: str) -> ColumnElement[bool]:
    """Whether a job has these letters in what a list shows of it."""
    users = select(User.id).where(User.name.icontains(words, autoescape=True))
    tags = func.jsonb_each_text(Job.tags).table_valued("key", "value", name="tag")
    in_a_value = select(tags.c.key).where(tags.c.value.icontains(words, autoescape=True)).exists()
    return or_(
        *(column.icontains(words, autoescape=True) for column in (Job.dataset, Job.model, Job.optimizer)),
        Job.user_id.in_(users),
        # The text first, which is three times as fast: tags have no letters that JSON would write otherwise.
        and_(cast(Job.tags, Text).icontains(words, autoescape=True), in_a_value),
    )


def find(
    session: Session, wanted: Filter, limit: int, after: UUID | None, *, oldest_first: bool = False
) -> tuple[Sequence[Job], bool]:
    """Up to `limit` jobs beyond the job `after`, newest first unless told, and whether there are more.

    Ids sort by age.
    """
    query = select(Job).where(*wanted.conditions).limit(limit + 1)
    query = query.order_by(Job.id if oldest_first else Job.id.desc())
    if after is not None:
        query = query.where(Job.id > after if oldest_first else Job.id < after)
    jobs = session.scalars(query).all()
    return jobs[:limit], len(jobs) > limit


def count(session: Session, wanted: Filter) -> dict[JobStatus, int]:
    """How many there are of each status."""
    rows = session.execute(select(Job.status, func.count()).where(*wanted.conditions).group_by(Job.status))
    found = {JobStatus(status): number for status, number in rows}
    return {status: found.get(status, 0) for status in JobStatus}


def cancel(session: Session, user: User, job_id: UUID) -> Job:
    """End a queued job at once and ask a running one to stop; doing so again changes nothing."""
    job = _owned(session, user, job_id)
    _check_cancel(job)
    cancel_many(session, [job_id])
    session.refresh(job)
    return job


def _check_cancel(job: Job) -> None:
    if JobStatus(job.status) not in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLED):
        raise Conflict(f"job {job.id} has ended already ({job.status})", current_status=job.status)


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


# --- many at a time --------------------------------------------------------------------------------------------------


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


# --- whose -----------------------------------------------------------------------------------------------------------


def _owned(session: Session, user: User, job_id: UUID) -> Job:
    """The job, locked, if this user may change it."""
    return _allowed(user, job_id, session.scalar(select(Job).where(Job.id == job_id).with_for_update(of=Job)))


def _allowed(user: User, job_id: UUID, job: Job | None) -> Job:
    """The job that was found under an id, if this user may change it."""
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    if job.user_id != user.id and not user.is_admin:
        raise Forbidden(f"job {job_id} belongs to {job.user.name}")
    return job
