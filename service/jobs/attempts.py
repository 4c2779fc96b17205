"""Attempts: what happens to a job from the moment that a worker claims it, and who may write it.

Every change of status goes through `_change`, a guarded UPDATE against `TRANSITIONS` that writes the event in the same
transaction. What a worker writes names its `attempt`: an old one changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, bindparam, func, select, text, update
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import checkpoints
from service.jobs.checkpoints import Written
from service.metrics import metrics
from service.specs.training import ENGINE_VERSION, TRANSITIONS, Environment, JobStatus, Reason, Summary
from service.storage.session import NOW, storable
from service.storage.tables import Job, JobEvent, Worker


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


WAITS = "waits for its checkpoints"
"""How the message of a job begins that was given back because they were not there."""
CONTINUED, BEGAN_ANEW = "continued after step", "began anew"
"""How it goes on at last."""


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
    _note(session, claim.job_id, claim.attempt, [f"{CONTINUED} {step}" if step else BEGAN_ANEW], step)
    return True


def waited_seconds(session: Session, job_id: UUID) -> float:
    """How long a job has been given back for want of its checkpoints, since it trained last."""
    of_it = JobEvent.job_id == job_id
    began = JobEvent.message.startswith(CONTINUED) | (JobEvent.message == BEGAN_ANEW)
    trained = select(func.coalesce(func.max(JobEvent.seq), 0)).where(of_it, began).scalar_subquery()
    since = select(func.min(JobEvent.at)).where(of_it, JobEvent.message.startswith(WAITS), JobEvent.seq > trained)
    return float(session.scalar(select(func.extract("epoch", NOW - since.scalar_subquery()))) or 0.0)


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


def _note(session: Session, job_id: UUID, attempt: int, notes: Sequence[str], step: int | None = None) -> None:
    """Write events that change no status; one that is there already is not written again."""
    for note in map(storable, notes):
        same = select(JobEvent.seq).where(
            JobEvent.job_id == job_id, JobEvent.attempt == attempt, JobEvent.message == note
        )
        if session.scalar(same.limit(1)) is None:
            _record(session, job_id, JobStatus.RUNNING, message=note, step=step)


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


CUT_OFF = text(
    """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity JOIN workers ON application_name = 'kotrain ' || right(workers.id, 55)
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND greatest(xact_start, workers.heartbeat_at, pg_postmaster_start_time())
              < clock_timestamp() - make_interval(secs => :lease)
    """
)
"""Which worker a connection belongs to is told by its name (`service.storage.session.connection_name`)."""


def cut_off_stale(session: Session) -> int:
    """End the transactions, a lease old, of workers that gave no sign of life for as long: they lock jobs and plans.

    Answers how many there were. Their connections end; a worker that wakes up makes new ones and is told what it lost.
    """
    return len(session.execute(CUT_OFF, {"lease": settings().lease_seconds}).all())


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


def _record(
    session: Session,
    job_id: UUID,
    status: JobStatus,
    reason: Reason | None = None,
    message: str | None = None,
    step: int | None = None,
) -> None:
    """Append to the job's events; the caller's transaction holds the job's row lock, so `seq` has no gaps."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(seq=Job.seq + 1)
        .returning(Job.seq, Job.attempt)
        .execution_options(synchronize_session=False)
    ).one()
    event = {"attempt": row.attempt, "status": status, "reason": reason, "message": message, "step": step}
    session.add(JobEvent(job_id=job_id, seq=row.seq, **event))
