"""Status changes of claimed jobs: guarded updates against `TRANSITIONS`, each with its event in one transaction.

Every write is guarded by the `attempt` that makes it, the fence: a superseded attempt writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.storage.database import storable
from service.storage.tables import Job, JobEvent


def lock_owned(session: Session, job_id: UUID, attempt: int) -> bool:
    """Lock the row of a job that `attempt` owns. Returns False if another attempt owns it or it has ended."""
    owned = select(Job.id).where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    return session.scalar(owned.with_for_update()) is not None


def record_notes(session: Session, job_id: UUID, attempt: int, notes: Sequence[str], step: int | None = None) -> None:
    """Write events that do not change the status; existing ones are not written again."""
    for note in map(storable, notes):
        same = select(JobEvent.seq).where(
            JobEvent.job_id == job_id, JobEvent.attempt == attempt, JobEvent.message == note
        )
        if session.scalar(same.limit(1)) is None:
            record_event(session, job_id, JobStatus.RUNNING, message=note, step=step)


def change_status(
    session: Session, job_id: UUID, start: JobStatus, end: JobStatus, *, attempt: int | None = None, **values: Any
) -> bool:
    """Change a job's status from `start` to `end` and write the event. False if its status or attempt differs."""
    assert end in TRANSITIONS[start]
    if values.get("message"):
        values["message"] = storable(values["message"])
    change = update(Job).where(Job.id == job_id, Job.status == start)
    if attempt is not None:
        change = change.where(Job.attempt == attempt)
    change = change.values(status=end, **values).execution_options(synchronize_session=False)
    changed = session.scalar(change.returning(Job.id)) is not None
    if changed:
        record_event(session, job_id, end, values.get("reason"), values.get("message"))
    return changed


def record_event(
    session: Session,
    job_id: UUID,
    status: JobStatus,
    reason: Reason | None = None,
    message: str | None = None,
    step: int | None = None,
) -> None:
    """Append to the job's events. The caller's transaction holds the job's row lock, so `seq` has no gaps."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(seq=Job.seq + 1)
        .returning(Job.seq, Job.attempt)
        .execution_options(synchronize_session=False)
    ).one()
    event = {"attempt": row.attempt, "status": status, "reason": reason, "message": message, "step": step}
    session.add(JobEvent(job_id=job_id, seq=row.seq, **event))
