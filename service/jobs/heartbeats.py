"""Heartbeats: a worker renews the leases of its jobs and stores their metrics, checkpoints and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, Text, bindparam, func, text, update
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import checkpoints
from service.jobs.checkpoints import Written
from service.jobs.claims import Claim
from service.jobs.transitions import record_notes
from service.metrics import write
from service.storage.database import NOW, storable
from service.storage.tables import Worker


@dataclass(frozen=True)
class Batch:
    """Data that an attempt stores in one transaction. Storing a batch again has no effect."""

    points: write.Points = field(default_factory=dict)
    checkpoints: Sequence[Written] = ()
    """The points up to each checkpoint's step are in this batch or an earlier one."""
    notes: Sequence[str] = ()
    """Messages for the user, stored as events."""


@dataclass(frozen=True)
class Beat:
    """The heartbeat of one running job, with what it produced since the last one."""

    claim: Claim
    step: int
    total_steps: int | None
    batches: Sequence[Batch]
    message: str | None = None
    """Shown as the message of the running job; None clears it."""


class Instruction(Enum):
    """The response to a running job's heartbeat."""

    CONTINUE = auto()
    CANCEL = auto()
    LOST = auto()
    """Another attempt owns the job: stop without writing."""


def store_batches(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    """Store batches of an attempt. The caller has locked its job."""
    write.append(session, [(job_id, batch.points) for batch in batches])
    _store_checkpoints_and_notes(session, job_id, attempt, batches)


def _store_checkpoints_and_notes(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    """Store the checkpoints and notes of batches. The caller has locked the job."""
    for batch in batches:
        checkpoints.add(session, job_id, attempt, batch.checkpoints)
        record_notes(session, job_id, attempt, batch.notes)


BEAT = text(
    """
    UPDATE jobs
    SET heartbeat_at = clock_timestamp(), step = beat.step, total_steps = coalesce(beat.total_steps, jobs.total_steps),
        message = beat.message
    FROM unnest(:ids, :attempts, :steps, :totals, :messages) AS beat(id, attempt, step, total_steps, message)
    WHERE jobs.id = beat.id AND jobs.attempt = beat.attempt AND jobs.status = 'running'
    RETURNING jobs.id, jobs.cancel_requested
    """
).bindparams(
    bindparam("ids", type_=ARRAY(SqlUuid())),
    bindparam("attempts", type_=ARRAY(Integer)),
    bindparam("steps", type_=ARRAY(BigInteger)),
    bindparam("totals", type_=ARRAY(BigInteger)),
    bindparam("messages", type_=ARRAY(Text)),
)


def beat(session: Session, worker_id: str, beats: Sequence[Beat]) -> dict[UUID, Instruction]:
    """Renew the leases of a worker's jobs and store their batches; returns the instruction for each job."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=NOW, stopped_at=None))
    rows = session.execute(
        BEAT,
        {
            "ids": [sent.claim.job_id for sent in beats],
            "attempts": [sent.claim.attempt for sent in beats],
            "steps": [sent.step for sent in beats],
            "totals": [sent.total_steps for sent in beats],
            "messages": [sent.message and storable(sent.message) for sent in beats],
        },
    )
    cancelled = {row.id: row.cancel_requested for row in rows}
    owned = [sent for sent in beats if sent.claim.job_id in cancelled]
    write.append(session, [(sent.claim.job_id, batch.points) for sent in owned for batch in sent.batches])
    for sent in owned:
        _store_checkpoints_and_notes(session, sent.claim.job_id, sent.claim.attempt, sent.batches)
    instructions = {True: Instruction.CANCEL, False: Instruction.CONTINUE}
    return {
        job_id: instructions[cancelled[job_id]] if job_id in cancelled else Instruction.LOST
        for job_id in (sent.claim.job_id for sent in beats)
    }


END_STALE = text(
    """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity JOIN workers ON application_name = 'kotrain ' || right(workers.id, 55)
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND greatest(xact_start, workers.heartbeat_at, pg_postmaster_start_time())
              < clock_timestamp() - make_interval(secs => :lease)
    """
)
"""The name of a connection identifies its worker (`service.storage.database.connection_name`)."""


def end_stale_transactions(session: Session) -> int:
    """End transactions of workers without a heartbeat for a lease, if as old as that: they hold locks on jobs.

    Returns their number. The connections are closed; a worker that resumes reconnects and learns which jobs it lost.
    """
    return len(session.execute(END_STALE, {"lease": settings().lease_seconds}).all())


def is_stale(heartbeat_at: Any) -> ColumnElement[bool]:
    """Whether the lease of a job has expired."""
    return silence(heartbeat_at) > timedelta(seconds=settings().lease_seconds)


def silence(heartbeat_at: Any) -> ColumnElement[timedelta]:
    """The time since a heartbeat, by the database's clock. Downtime of the database does not count."""
    return NOW - func.greatest(heartbeat_at, func.pg_postmaster_start_time())
