"""Rows of checkpoints: a stored file counts only through its row, which commits with the metrics up to its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.storage.files import remove_after_commit
from service.storage.tables import Checkpoint

KEPT = 2
"""The newest, and the one before it in case that one turns out to be damaged."""


@dataclass(frozen=True)
class Written:
    """A file in the store that an attempt wrote: the state of its job after `step` optimizer steps."""

    step: int
    file: str
    size_bytes: int
    sha256: str
    seconds: float
    """Wall-clock of the run until then."""


def name_of(job_id: UUID, attempt: int, file: str = "") -> str:
    """Where in the store an attempt's files lie, and nobody else's."""
    return f"jobs/{job_id}/{attempt}/{file}"


def add(session: Session, job_id: UUID, attempt: int, written: Sequence[Written]) -> None:
    """Make these count, and older ones than the newest two not. The caller holds the fence (the job's row lock).

    One of a step that an earlier attempt stopped at, before its validation or while it was tested, takes that one's
    place. One that is sent again after a commit whose answer was lost is there already.
    """
    if not written:
        return
    of_these = Checkpoint.step.in_([one.step for one in written])
    others = Checkpoint.file.not_in([one.file for one in written])
    replaced = delete(Checkpoint).where(Checkpoint.job_id == job_id, of_these, others).returning(Checkpoint.file)
    remove_after_commit(session, session.scalars(replaced).all())
    rows = [{"job_id": job_id, "attempt": attempt, **asdict(one)} for one in written]
    session.execute(insert(Checkpoint).on_conflict_do_nothing(), rows)
    kept = select(Checkpoint.step).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()).limit(KEPT)
    superseded = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step.not_in(kept))
    remove_after_commit(session, session.scalars(superseded.returning(Checkpoint.file)).all())


def take_over(session: Session, job_id: UUID, attempt: int) -> None:
    """The attempt gets what the one before it had, and only that: a version without checkpoints may have run since.

    It discarded the points that led to them, and leaves the rows as they are.
    """
    before = Checkpoint.attempt == attempt - 1
    session.execute(update(Checkpoint).where(Checkpoint.job_id == job_id, before).values(attempt=attempt))
    lost = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.attempt < attempt)
    remove_after_commit(session, session.scalars(lost.returning(Checkpoint.file)).all())


def newest_first(session: Session, job_id: UUID) -> list[Written]:
    """What a job can continue from."""
    columns = (Checkpoint.step, Checkpoint.file, Checkpoint.size_bytes, Checkpoint.sha256, Checkpoint.seconds)
    rows = session.execute(select(*columns).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()))
    return [Written(*row) for row in rows]


def forget_after(session: Session, job_id: UUID, step: int) -> None:
    """The job continues from `step` (0: from the beginning): what lies beyond it is damaged or of no use."""
    beyond = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step > step)
    remove_after_commit(session, session.scalars(beyond.returning(Checkpoint.file)).all())
