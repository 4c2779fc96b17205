"""Jobs: the only writer of job status.

Every change of status goes through `_change`, a guarded UPDATE against `TRANSITIONS` that writes the event in the same
transaction. What a worker writes names its `attempt`: an old one changes nothing. All of it stands in this one file,
long as it is, so that nobody has to look elsewhere for what can happen to a job.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, bindparam, func, insert, select, text, update
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service import checkpoints, data, metrics, queue
from service.checkpoints import Written
from service.config import settings
from service.db import connection_name, ring_after_commit
from service.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from service.models import ComparisonCell, Job, JobEvent, User, Worker
from service.schemas import JobRequest
from service.spec import ENGINE_VERSION, TRANSITIONS, Environment, JobStatus, Reason, Summary, TrainSpec

NOW = func.clock_timestamp()
MOST_BELLS = 64
"""Rung for jobs that are stored together: a slot that is awake goes on until nothing is left."""


# --- what users do ---------------------------------------------------------------------------------------------------


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


# --- what workers do -------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Batch:
    """What an attempt has to store: once and together, also where it has to be sent again."""

    points: metrics.Points = field(default_factory=dict)
    checkpoints: Sequence[Written] = ()
    """None is of a step whose points are not in this batch or an earlier one."""
    notes: Sequence[str] = ()
    """What the user should know of it; they become events."""


@dataclass(frozen=True)
class Beat:
    """A sign of life of one running job, with what came up since the last one."""

    claim: Claim
    step: int
    total_steps: int | None
    batches: Sequence[Batch]


class Order(Enum):
    """What a running job is told when it gives a sign of life."""

    GO_ON = auto()
    CANCEL = auto()
    LOST = auto()
    """Somebody else owns the job by now: write nothing, stop."""


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
    _record(session, row.id, JobStatus.RUNNING)
    return Claim(*row)


def begin(session: Session, claim: Claim, step: int, told: Collection[str] = ()) -> bool:
    """The attempt goes on after `step`, 0 being the beginning: forget what the one before it left beyond that.

    Of the step itself the metrics `told` are known; others that the one before measured of it will come again.

    False, and nothing is done, where the attempt is an old one.
    """
    if not _lock_owned(session, claim):
        return False
    metrics.trim(session, claim.job_id, step, told)
    checkpoints.forget_after(session, claim.job_id, step)
    session.execute(update(Job).where(Job.id == claim.job_id).values(step=step))
    if step:
        _note(session, claim.job_id, claim.attempt, [f"continued after step {step}"])
    return True


def _lock_owned(session: Session, claim: Claim) -> bool:
    """Lock the attempt's job; False where the attempt does not own it any more."""
    owned = select(Job.id).where(Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status == JobStatus.RUNNING)
    return session.scalar(owned.with_for_update()) is not None


def _store(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    """Store what came up in an attempt whose job the caller has locked."""
    metrics.append(session, [(job_id, batch.points) for batch in batches])
    _keep(session, job_id, attempt, batches)


def _keep(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    for batch in batches:
        checkpoints.add(session, job_id, attempt, batch.checkpoints)
        _note(session, job_id, attempt, batch.notes)


def _note(session: Session, job_id: UUID, attempt: int, notes: Sequence[str]) -> None:
    """Write events that change no status; one that is there already is not written again."""
    for note in map(storable, notes):
        same = select(JobEvent.seq).where(
            JobEvent.job_id == job_id, JobEvent.attempt == attempt, JobEvent.message == note
        )
        if session.scalar(same.limit(1)) is None:
            _record(session, job_id, JobStatus.RUNNING, message=note)


BEAT = text(
    """
    UPDATE jobs
    SET heartbeat_at = clock_timestamp(), step = beat.step, total_steps = coalesce(beat.total_steps, jobs.total_steps)
    FROM unnest(:ids, :attempts, :steps, :totals) AS beat(id, attempt, step, total_steps)
    WHERE jobs.id = beat.id AND jobs.attempt = beat.attempt AND jobs.status = 'running'
    RETURNING jobs.id, jobs.cancel_requested
    """
).bindparams(
    bindparam("ids", type_=ARRAY(SqlUuid())),
    bindparam("attempts", type_=ARRAY(Integer)),
    bindparam("steps", type_=ARRAY(BigInteger)),
    bindparam("totals", type_=ARRAY(BigInteger)),
)


def beat(session: Session, worker_id: str, beats: Sequence[Beat]) -> dict[UUID, Order]:
    """Renew the leases of all of a worker's jobs and store what came up; answers what each should do."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=NOW, stopped_at=None))
    rows = session.execute(
        BEAT,
        {
            "ids": [beat.claim.job_id for beat in beats],
            "attempts": [beat.claim.attempt for beat in beats],
            "steps": [beat.step for beat in beats],
            "totals": [beat.total_steps for beat in beats],
        },
    )
    cancelled = {row.id: row.cancel_requested for row in rows}
    owned = [beat for beat in beats if beat.claim.job_id in cancelled]
    metrics.append(session, [(beat.claim.job_id, batch.points) for beat in owned for batch in beat.batches])
    for beat in owned:
        _keep(session, beat.claim.job_id, beat.claim.attempt, beat.batches)
    orders = {True: Order.CANCEL, False: Order.GO_ON}
    return {
        job_id: orders[cancelled[job_id]] if job_id in cancelled else Order.LOST
        for job_id in (beat.claim.job_id for beat in beats)
    }


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
    """End a running job with the last that came up; False, and nothing written, where the attempt is an old one."""
    if not _lock_owned(session, claim):
        return False
    _store(session, claim.job_id, claim.attempt, batches)
    ended = _change(
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
    metrics.merge(session, claim.job_id)
    return ended


def give_back(
    session: Session, claim: Claim, message: str, wait_seconds: float = 0, batches: Sequence[Batch] = ()
) -> bool:
    """Return a job to the queue without blame: its worker shuts down or cannot run it. One to be cancelled ends."""
    if not _lock_owned(session, claim):
        return False
    if session.scalar(select(Job.cancel_requested).where(Job.id == claim.job_id)):
        return finish(session, claim, Reason.CANCELLED, message=message, batches=batches)
    _store(session, claim.job_id, claim.attempt, batches)
    return _change(
        session,
        claim.job_id,
        JobStatus.RUNNING,
        JobStatus.QUEUED,
        attempt=claim.attempt,
        message=message,
        worker_id=None,
        available_at=NOW + timedelta(seconds=wait_seconds),
    )


def lose(
    session: Session, job_id: UUID, attempt: int, reason: Reason, message: str, batches: Sequence[Batch] = ()
) -> bool:
    """A worker or child was lost: the job waits and goes on, unless this happened too often or it was cancelled."""
    owned = select(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    job = session.scalar(owned.with_for_update(of=Job))
    if job is None:
        return False
    _store(session, job_id, attempt, batches)
    failures = job.failures + 1
    if job.cancel_requested:
        end, why = JobStatus.CANCELLED, Reason.CANCELLED
    elif failures >= job.max_failures:
        end, why = JobStatus.FAILED, reason
    else:
        end, why = JobStatus.QUEUED, reason
    if end is JobStatus.QUEUED:
        wait = timedelta(seconds=settings().backoff_seconds * 2.0 ** min(failures - 1, 10))
        follows: dict[str, Any] = {"worker_id": None, "available_at": NOW + wait}
    else:
        metrics.merge(session, job_id)
        follows = {"finished_at": NOW}
    return _change(
        session,
        job_id,
        JobStatus.RUNNING,
        end,
        attempt=attempt,
        reason=why,
        message=message,
        failures=failures,
        **follows,
    )


# --- what maintenance does -------------------------------------------------------------------------------------------


def cut_off_stale(session: Session) -> int:
    """End the transactions, a lease old, of workers that gave no sign of life for as long: they lock their jobs.

    Answers how many there were. Their connections end; a worker that wakes up makes new ones and is told what it lost.
    """
    workers = session.scalars(
        select(Job.worker_id)
        .join(Worker, Worker.id == Job.worker_id)
        .where(Job.status == JobStatus.RUNNING, _is_stale(Job.heartbeat_at), _is_stale(Worker.heartbeat_at))
        .distinct()
    )
    names = [connection_name(worker) for worker in workers if worker is not None]
    asked = {"names": names, "lease": settings().lease_seconds}
    return len(session.execute(CUT_OFF, asked).all()) if names else 0


CUT_OFF = text(
    """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = ANY(:names) AND pid <> pg_backend_pid()
          AND xact_start < clock_timestamp() - make_interval(secs => :lease)
    """
)


def _is_stale(heartbeat_at: Any) -> ColumnElement[bool]:
    """Whether a lease ran out, by the database's clock; its own downtime does not count against a worker."""
    alive_at = func.greatest(heartbeat_at, func.pg_postmaster_start_time())
    return NOW - alive_at > timedelta(seconds=settings().lease_seconds)


def take_back_stale(session: Session) -> list[UUID]:
    """Take back the jobs whose lease ran out."""
    stale = session.execute(
        select(Job.id, Job.attempt, Job.worker_id)
        .where(Job.status == JobStatus.RUNNING, _is_stale(Job.heartbeat_at))
        .with_for_update(skip_locked=True)
    ).all()
    for job_id, attempt, worker_id in stale:
        lose(
            session,
            job_id,
            attempt,
            Reason.WORKER_LOST,
            f"worker {worker_id} gave no sign of life for {settings().lease_seconds:g} s",
        )
    return [row.id for row in stale]


def count_eligible(session: Session, limit: int, *, has_cuda: bool) -> int:
    """How many queued jobs a worker could start now, counted up to `limit`."""
    eligible = select(Job.id).where(
        Job.status == JobStatus.QUEUED, Job.available_at <= NOW, Job.engine_version <= ENGINE_VERSION
    )
    eligible = eligible.limit(limit)
    if not has_cuda:
        eligible = eligible.where(Job.needs_cuda.is_(False))
    return session.scalar(select(func.count()).select_from(eligible.subquery())) or 0


# --- the guarded write -----------------------------------------------------------------------------------------------


def _change(
    session: Session, job_id: UUID, start: JobStatus, end: JobStatus, *, attempt: int | None = None, **values: Any
) -> bool:
    """Move a job from `start` to `end` and write the event; False where it is not in `start`, or not at `attempt`."""
    assert end in TRANSITIONS[start]
    if values.get("message"):
        values["message"] = storable(values["message"])
    change = update(Job).where(Job.id == job_id, Job.status == start)
    if attempt is not None:
        change = change.where(Job.attempt == attempt)
    change = change.values(status=end, **values).execution_options(synchronize_session=False)
    changed = session.scalar(change.returning(Job.id)) is not None
    if changed:
        _record(session, job_id, end, values.get("reason"), values.get("message"))
    return changed


def storable(message: str) -> str:
    """The text without what Postgres cannot hold: NUL, and halves of surrogate pairs from file names."""
    return message.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _record(
    session: Session, job_id: UUID, status: JobStatus, reason: Reason | None = None, message: str | None = None
) -> None:
    """Append to the job's events; the caller's transaction holds the job's row lock, so `seq` has no gaps."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(seq=Job.seq + 1)
        .returning(Job.seq, Job.attempt)
        .execution_options(synchronize_session=False)
    ).one()
    session.add(
        JobEvent(job_id=job_id, seq=row.seq, attempt=row.attempt, status=status, reason=reason, message=message)
    )
