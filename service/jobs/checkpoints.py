"""Rows of checkpoints. A stored file is valid only through its row, which commits with the metrics up to its step."""

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
"""Checkpoints kept per job: the newest, and the one before it in case the newest is damaged."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that an attempt wrote to the store: the state of its job after `step` optimizer steps."""

    step: int
    file: str
    size_bytes: int
    sha256: str
    seconds: float
    """Wall-clock seconds of the run up to the checkpoint."""


def name_of(job_id: UUID, attempt: int, file: str = "") -> str:
    """Name in the store of an attempt's file; the prefix belongs to this attempt alone."""
    return f"jobs/{job_id}/{attempt}/{file}"


def add(session: Session, job_id: UUID, attempt: int, written: Sequence[Written]) -> None:
    """Add checkpoints and delete all but the newest two. The caller holds the fence (the job's row lock).

    A checkpoint replaces that of an earlier attempt at the same step, which stopped before its validation or during its
    test. One that is sent again, after a commit whose response was lost, is ignored.
    """
    if not written:
        return
    of_these = Checkpoint.step.in_([checkpoint.step for checkpoint in written])
    others = Checkpoint.file.not_in([checkpoint.file for checkpoint in written])
    replaced = delete(Checkpoint).where(Checkpoint.job_id == job_id, of_these, others).returning(Checkpoint.file)
    remove_after_commit(session, session.scalars(replaced).all())
    rows = [{"job_id": job_id, "attempt": attempt, **asdict(checkpoint)} for checkpoint in written]
    session.execute(insert(Checkpoint).on_conflict_do_nothing(), rows)
    kept = select(Checkpoint.step).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()).limit(KEPT)
    superseded = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step.not_in(kept))
    remove_after_commit(session, session.scalars(superseded.returning(Checkpoint.file)).all())


def take_over(session: Session, job_id: UUID, attempt: int) -> None:
    """Assign the checkpoints of the preceding attempt to this one, and delete older ones.

    A version without checkpoints that ran in between discarded the points up to them and left their rows.
    """
    before = Checkpoint.attempt == attempt - 1
    session.execute(update(Checkpoint).where(Checkpoint.job_id == job_id, before).values(attempt=attempt))
    lost = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.attempt < attempt)
    remove_after_commit(session, session.scalars(lost.returning(Checkpoint.file)).all())


def newest_first(session: Session, job_id: UUID) -> list[Written]:
    """The checkpoints a job can continue from, newest first."""
    columns = (Checkpoint.step, Checkpoint.file, Checkpoint.size_bytes, Checkpoint.sha256, Checkpoint.seconds)
    rows = session.execute(select(*columns).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()))
    return [Written(*row) for row in rows]


def forget_after(session: Session, job_id: UUID, step: int) -> None:
    """Delete the checkpoints after `step`, from which the job continues (0: from the start)."""
    beyond = delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step > step)
    remove_after_commit(session, session.scalars(beyond.returning(Checkpoint.file)).all())
