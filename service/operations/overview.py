"""What is going on, at a glance: one small answer, cheap enough to be asked for every few seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.comparisons import lifecycle as comparisons
from service.errors import Conflict
from service.jobs import lookup
from service.jobs.workers import is_up
from service.specs.bodies import Output
from service.specs.states import ComparisonStatus, JobStatus
from service.storage.tables import Comparison, Job, User, Worker

RECENT = timedelta(days=1)
SHOWN = 5
"""Comparisons."""


class QueueView(Output):
    """What a user waits for, and what runs."""

    user: str
    queued: int
    running: int


class Slots(Output):
    """Of all workers that are up."""

    total: int = Field(description="Jobs that they run at once.")
    busy: int


class RecentComparison(Output):
    """A comparison, how far it is, and what it says."""

    id: UUID
    name: str
    user: str
    status: ComparisonStatus
    created_at: datetime
    finished_at: datetime | None
    verdict: list[str] = Field(description="What is known, in sentences.")
    jobs: int = Field(description="Runs asked for so far.")
    jobs_at_most: int = Field(description="Runs if every look is needed.")
    ended: int = Field(description="Of the runs asked for.")


class Overview(Output):
    """What is going on."""

    jobs: dict[JobStatus, int] = Field(description="How many there are, by status.")
    ended: dict[JobStatus, int] = Field(description="How many ended in the last 24 hours, by status.")
    queue: list[QueueView] = Field(description="Users with a job that waits or runs; who waits for most comes first.")
    slots: Slots
    comparisons: list[RecentComparison] = Field(description="The newest five.")


def overview(session: Session) -> Overview:
    """All of it."""
    newest, _ = comparisons.find(session, SHOWN, None)
    return Overview(
        jobs=lookup.count(session, lookup.Filter()),
        ended=_ended(session),
        queue=_queue(session),
        slots=_slots(session),
        comparisons=[_recent(session, one) for one in newest],
    )


def _ended(session: Session) -> dict[JobStatus, int]:
    """How many jobs ended lately. With each status named and a time that stands still, an index answers."""
    ends = [status for status in JobStatus if status.is_final]
    is_recent = Job.finished_at >= func.statement_timestamp() - RECENT
    query = select(Job.status, func.count()).where(Job.status.in_(ends), is_recent).group_by(Job.status)
    found = {JobStatus(status): number for status, number in session.execute(query)}
    return {status: found.get(status, 0) for status in ends}


def _queue(session: Session) -> list[QueueView]:
    of_status = {
        status: func.count().filter(Job.status == status).label(status)
        for status in (JobStatus.QUEUED, JobStatus.RUNNING)
    }
    rows = session.execute(
        select(User.name.label("user"), *of_status.values())
        .join(Job, Job.user_id == User.id)
        .where(Job.status.in_(of_status))
        .group_by(User.name)
        .order_by(of_status[JobStatus.QUEUED].desc(), User.name)
    )
    return [QueueView.model_validate(row) for row in rows]


def _slots(session: Session) -> Slots:
    total = session.scalar(select(func.coalesce(func.sum(Worker.slots), 0)).where(is_up()))
    busy = session.scalar(
        select(func.count())
        .select_from(Job)
        .join(Worker, Worker.id == Job.worker_id)
        .where(Job.status == JobStatus.RUNNING, is_up())
    )
    return Slots(total=total or 0, busy=busy or 0)


def _recent(session: Session, comparison: Comparison) -> RecentComparison:
    """One that this version cannot read says so, and the others are shown all the same."""
    about = {name: getattr(comparison, name) for name in ("id", "name", "status", "created_at", "finished_at")}
    about["user"] = comparison.user.name
    try:
        answer = comparisons.answer(session, comparison)
    except Conflict as unreadable:
        return RecentComparison(**about, verdict=[unreadable.detail], jobs=0, jobs_at_most=0, ended=0)
    progress = answer.progress
    return RecentComparison(
        **about,
        verdict=answer.verdict,
        jobs=progress.jobs,
        jobs_at_most=progress.jobs_at_most,
        ended=progress.jobs - progress.queued - progress.running,
    )
