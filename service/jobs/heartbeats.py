"""Heartbeats: a worker renews the leases of its jobs and stores what they measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, bindparam, func, text, update
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import checkpoints
from service.jobs.checkpoints import Written
from service.jobs.claims import Claim
from service.jobs.transitions import record_notes
from service.metrics import write
from service.storage.database import NOW
from service.storage.tables import Worker


@dataclass(frozen=True)
class Batch:
    """What an attempt has to store: once and together, also where it has to be sent again."""

    points: write.Points = field(default_factory=dict)
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


class Instruction(Enum):
    """What a running job has to do, as the answer to its heartbeat."""

    CONTINUE = auto()
    CANCEL = auto()
    LOST = auto()
    """Another attempt owns the job: write nothing, stop."""


def store_batches(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    """Store what came up in an attempt whose job the caller has locked."""
    write.append(session, [(job_id, batch.points) for batch in batches])
    store_checkpoints(session, job_id, attempt, batches)


def store_checkpoints(session: Session, job_id: UUID, attempt: int, batches: Sequence[Batch]) -> None:
    """Store the checkpoints and notes of an attempt whose job the caller has locked."""
    for batch in batches:
        checkpoints.add(session, job_id, attempt, batch.checkpoints)
        record_notes(session, job_id, attempt, batch.notes)


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


def beat(session: Session, worker_id: str, beats: Sequence[Beat]) -> dict[UUID, Instruction]:
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
    write.append(session, [(beat.claim.job_id, batch.points) for beat in owned for batch in beat.batches])
    for beat in owned:
        store_checkpoints(session, beat.claim.job_id, beat.claim.attempt, beat.batches)
    instructions = {True: Instruction.CANCEL, False: Instruction.CONTINUE}
    return {
        job_id: instructions[cancelled[job_id]] if job_id in cancelled else Instruction.LOST
        for job_id in (beat.claim.job_id for beat in beats)
    }


CUT_OFF = text(
    """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity JOIN workers ON application_name = 'kotrain ' || right(workers.id, 55)
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND greatest(xact_start, workers.heartbeat_at, pg_postmaster_start_time())
              < clock_timestamp() - make_interval(secs => :lease)
    """
)
"""Which worker a connection belongs to is told by its name (`service.storage.database.connection_name`)."""


def end_stale_transactions(session: Session) -> int:
    """End the transactions, a lease old, of workers that gave no sign of life for as long: they lock jobs and plans.

    Answers how many there were. Their connections end; a worker that wakes up makes new ones and is told what it lost.
    """
    return len(session.execute(CUT_OFF, {"lease": settings().lease_seconds}).all())


def is_stale(heartbeat_at: Any) -> ColumnElement[bool]:
    """Whether a lease ran out, by the database's clock; its own downtime does not count against a worker."""
    alive_at = func.greatest(heartbeat_at, func.pg_postmaster_start_time())
    return NOW - alive_at > timedelta(seconds=settings().lease_seconds)
