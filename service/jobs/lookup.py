"""Look up jobs: by id, in filtered lists, as counts by status, and with their events."""

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
    """The job with this id. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"job {job_id} not found")
    return job


def history(session: Session, job_id: UUID) -> Sequence[JobEvent]:
    """The events of a job, oldest first. Raises NotFound."""
    get(session, job_id)
    return session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()


@dataclass(frozen=True)
class Filter:
    """Conditions on jobs; None means any."""

    statuses: Collection[JobStatus] | None = None
    dataset: str | None = None
    model: str | None = None
    optimizer: str | None = None
    user: str | None = None
    tag: tuple[str, str] | None = None
    comparison: UUID | None = None
    search: str | None = None
    """Text in the data set, model, optimizer, user, name or the value of a tag; case is ignored."""
    archived: bool = False
    """Include archived jobs; those of a comparison always are."""

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """SQL conditions, all of which must hold."""
        conditions: list[ColumnElement[bool]] = []
        if self.statuses is not None:
            conditions.append(Job.status.in_(self.statuses))
        for column in (Job.dataset, Job.model, Job.optimizer):
            if (value := getattr(self, column.key)) is not None:
                conditions.append(column == value)
        if self.user is not None:
            conditions.append(Job.user_id == select(User.id).where(User.name == self.user).scalar_subquery())
        if self.tag is not None:
            conditions.append(Job.tags.contains({self.tag[0]: self.tag[1]}))
        if self.comparison is not None:
            cells = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == self.comparison)
            conditions.append(Job.id.in_(cells))
        elif not self.archived:
            conditions.append(Job.archived_at.is_(None))
        if self.search:
            conditions.append(_contains(self.search))
        return conditions


def _contains(text: str) -> ColumnElement[bool]:
    """Whether a job contains this text in a column of the list."""
    users = select(User.id).where(User.name.icontains(text, autoescape=True))
    tags = func.jsonb_each_text(Job.tags).table_valued("key", "value", name="tag")
    in_a_value = select(tags.c.key).where(tags.c.value.icontains(text, autoescape=True)).exists()
    return or_(
        *(column.icontains(text, autoescape=True) for column in (Job.dataset, Job.model, Job.optimizer, Job.name)),
        Job.user_id.in_(users),
        # The plain text first, which is three times as fast: JSON escapes none of the characters allowed in tags.
        and_(cast(Job.tags, Text).icontains(text, autoescape=True), in_a_value),
    )


def find(
    session: Session, filter_: Filter, limit: int, after: UUID | None, *, oldest_first: bool = False
) -> tuple[Sequence[Job], bool]:
    """Up to `limit` jobs after the job `after`, newest first by default, and whether more follow. Ids sort by age."""
    query = select(Job).where(*filter_.conditions).limit(limit + 1)
    query = query.order_by(Job.id if oldest_first else Job.id.desc())
    if after is not None:
        query = query.where(Job.id > after if oldest_first else Job.id < after)
    jobs = session.scalars(query).all()
    return jobs[:limit], len(jobs) > limit


def count(session: Session, filter_: Filter) -> dict[JobStatus, int]:
    """Number of jobs by status."""
    rows = session.execute(select(Job.status, func.count()).where(*filter_.conditions).group_by(Job.status))
    counts = {JobStatus(status): number for status, number in rows}
    return {status: counts.get(status, 0) for status in JobStatus}
