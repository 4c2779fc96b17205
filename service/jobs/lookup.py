"""Find jobs: one by its id, lists with filters, counts by status, and a job's events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.specs.states import JobStatus
from service.storage.tables import ComparisonCell, Job, JobEvent, User


def get(session: Session, job_id: UUID) -> Job:
    """The job, or `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"job {job_id} not found")
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
