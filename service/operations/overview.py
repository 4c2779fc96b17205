"""The dashboard's overview: one small response, cheap enough to be polled every few seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.comparisons import lifecycle
from service.errors import Conflict
from service.jobs import lookup
from service.jobs.workers import is_up
from service.specs.bodies import Output
from service.specs.states import ComparisonStatus, JobStatus
from service.storage.tables import Comparison, Job, User, Worker

RECENT = timedelta(days=1)
SHOWN = 5
"""Number of comparisons in the overview."""


class QueueView(Output):
    """Queued and running jobs of a user."""

    user: str
    queued: int
    running: int


class Slots(Output):
    """Slots of all workers that are up."""

    total: int = Field(description="Maximum number of concurrent jobs.")
    busy: int


class RecentComparison(Output):
    """A comparison with its progress and verdict."""

    id: UUID
    name: str
    user: str
    status: ComparisonStatus
    created_at: datetime
    finished_at: datetime | None
    verdict: list[str] = Field(description="Verdict so far, in sentences.")
    jobs: int = Field(description="Runs requested so far.")
    jobs_at_most: int = Field(description="Maximum number of runs, if every look is needed.")
    ended: int = Field(description="Ended runs among those requested.")


class Overview(Output):
    """Jobs, queue, slots and recent comparisons."""

    jobs: dict[JobStatus, int] = Field(description="Number of jobs by status.")
    ended: dict[JobStatus, int] = Field(description="Number of jobs that ended in the last 24 hours, by status.")
    queue: list[QueueView] = Field(description="Users with queued or running jobs, sorted by queued jobs, most first.")
    slots: Slots
    comparisons: list[RecentComparison] = Field(description="The five newest comparisons.")


def overview(session: Session) -> Overview:
    """The overview of the whole installation."""
    newest, _ = lifecycle.find(session, SHOWN, None)
    return Overview(
        jobs=lookup.count(session, lookup.Filter()),
        ended=_ended(session),
        queue=_queue(session),
        slots=_slots(session),
        comparisons=[_recent(session, comparison) for comparison in newest],
    )


def _ended(session: Session) -> dict[JobStatus, int]:
    """Jobs that ended recently. With explicit statuses and a stable time the index is used."""
    ends = [status for status in JobStatus if status.is_final]
    is_recent = Job.finished_at >= func.statement_timestamp() - RECENT
    query = select(Job.status, func.count()).where(Job.status.in_(ends), is_recent).group_by(Job.status)
    counts = {JobStatus(status): number for status, number in session.execute(query)}
    return {status: counts.get(status, 0) for status in ends}


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
    """A comparison that this version cannot read is listed with the reason as its verdict."""
    fields = {name: getattr(comparison, name) for name in ("id", "name", "status", "created_at", "finished_at")}
    fields["user"] = comparison.user.name
    try:
        verdict, progress = lifecycle.brief(session, comparison)
    except Conflict as unreadable:
        return RecentComparison(**fields, verdict=[unreadable.detail], jobs=0, jobs_at_most=0, ended=0)
    return RecentComparison(
        **fields,
        verdict=verdict,
        jobs=progress.jobs,
        jobs_at_most=progress.jobs_at_most,
        ended=progress.jobs - progress.queued - progress.running,
    )
