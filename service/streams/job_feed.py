"""The stream of one job: its changes of status, notes, and points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.jobs.claims import BEGAN_ANEW, CONTINUED
from service.jobs.schemas import EventView
from service.metrics import read
from service.metrics.read import Curve
from service.specs.states import JobStatus
from service.storage.tables import Job, JobEvent, MetricName
from service.streams.cursor import END, JobCursor
from service.streams.curve_pages import Curves, before, beyond, parts
from service.streams.feed import Delta, frame

MOST_POINTS = 20_000
"""Of one event, and of what is read at once: about a megabyte."""

# Of each metric the chunk that holds the step and those after it, by the primary key. Distinct names are looked up one
# after the other: a long run has tens of thousands of chunks, and the table of names those of all jobs. `next_step` is
# where the metric goes on, be it within what was read or behind it. Counting points unpacks whole chunks, so that not
# many more are looked at than the page takes, if they are about as large as the next one.
CHUNKS = text(
    """
    WITH RECURSIVE own(id) AS (
        (SELECT name_id FROM metric_chunks WHERE job_id = :job ORDER BY name_id LIMIT 1)
        UNION ALL
        SELECT (SELECT name_id FROM metric_chunks WHERE job_id = :job AND name_id > own.id ORDER BY name_id LIMIT 1)
        FROM own WHERE own.id IS NOT NULL)
    SELECT own.id, metric_names.name, next_step, steps, values, wall_seconds
    FROM own JOIN metric_names ON metric_names.id = own.id CROSS JOIN LATERAL (
        (SELECT first_step, NULL AS next_step, steps, values, wall_seconds FROM metric_chunks
         WHERE job_id = :job AND name_id = own.id AND first_step <= :step ORDER BY first_step DESC LIMIT 1)
        UNION ALL
        (SELECT first_step, next_step, steps, values, wall_seconds
         FROM (SELECT greatest(1, :most / (cardinality(steps) * (SELECT count(id) FROM own))) AS most
               FROM metric_chunks WHERE job_id = :job AND name_id = own.id AND first_step > :step
               ORDER BY first_step LIMIT 1) AS chunks CROSS JOIN LATERAL (
              SELECT *, row_number() OVER ahead AS number, lead(first_step) OVER ahead AS next_step,
                     sum(cardinality(steps)) OVER ahead - cardinality(steps) AS before
              FROM (SELECT * FROM metric_chunks WHERE job_id = :job AND name_id = own.id AND first_step > :step
                    ORDER BY first_step LIMIT chunks.most + 1) AS next
              WINDOW ahead AS (ORDER BY first_step)) AS later
         WHERE number <= chunks.most AND (before = 0 OR before < :most / (SELECT count(id) FROM own)))) AS chunk
    ORDER BY own.id, chunk.first_step
    """
)


@dataclass(frozen=True)
class JobFeed:
    """One job.

    Args:
        job_id: which.
        max_points: of each curve in what a new stream tells first; None: all.
    """

    job_id: UUID
    max_points: int | None = None

    def parse(self, written: str) -> JobCursor | None:
        """As `Feed.parse`."""
        return JobCursor.parse(written)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return self.job_id

    def read(self, session: Session, cursor: JobCursor | None, until: int | None) -> Delta[JobCursor]:
        """As `Feed.read`, a page of the points at a time. The last status comes after all of them."""
        job = session.execute(
            select(Job.status, Job.reason, Job.seq, Job.step, Job.total_steps).where(Job.id == self.job_id)
        ).one_or_none()
        if job is None:
            raise NotFound(f"job {self.job_id} not found")
        if cursor is not None and cursor.seq > job.seq:  # of a job that a restore has set back
            cursor = None
        told = JobCursor() if cursor is None else cursor
        events = self._events(session, told)
        frames = []
        for event in events:
            if not _is_final(event):
                told, said = _told(event, told)
                frames.append(said)
        is_thinned = cursor is None and self.max_points is not None
        names, curves, has_more = self._history(session) if is_thinned else self._next(session, told)
        rest = parts(curves, told, MOST_POINTS)
        for part, after in islice(rest, None if is_thinned else 1):
            told = after
            frames.append(frame("metric", told, _points(part, names, job.step, job.total_steps)))
        if has_more or next(rest, None) is not None:
            return Delta(frames, told, has_more=True)
        for event in filter(_is_final, events):
            told, said = _told(event, told)
            frames.append(said)
        is_over = JobStatus(job.status).is_final
        if is_over:
            frames.append(frame("end", f"{told}{END}", {"status": job.status, "reason": job.reason}))
        return Delta(frames, told, is_last=is_over)

    def _events(self, session: Session, told: JobCursor) -> Sequence[JobEvent]:
        after = select(JobEvent).where(JobEvent.job_id == self.job_id, JobEvent.seq > told.seq)
        return session.scalars(after.order_by(JobEvent.seq)).all()

    def _history(self, session: Session) -> tuple[dict[int, str], Curves, bool]:
        """The names and all that was measured so far, thinned out; there is no more."""
        assert self.max_points is not None
        found = read.curves(session, [self.job_id]).get(self.job_id, {})
        called = session.execute(select(MetricName.id, MetricName.name).where(MetricName.name.in_(found)))
        names = {row.id: row.name for row in called}
        return names, {id_: read.thin(found[name], self.max_points) for id_, name in names.items()}, False

    def _next(self, session: Session, told: JobCursor) -> tuple[dict[int, str], Curves, bool]:
        """The names, the next points (about `MOST_POINTS`; at least one if there is one), and whether there are more.

        They are whole up to a step: what was read of some metrics beyond those of others comes again with the next.
        """
        names: dict[int, str] = {}
        chunks: dict[int, list[Any]] = {}
        goes_on: dict[int, int | None] = {}
        asked = {"job": self.job_id, "step": told.step, "most": MOST_POINTS}
        for id_, name, next_step, *columns in session.execute(CHUNKS, asked):
            names[id_], goes_on[id_] = name, next_step
            chunks.setdefault(id_, []).append(columns)
        curves = beyond({id_: _joined(of_one) for id_, of_one in chunks.items()}, told)
        behind = min((step for step in goes_on.values() if step is not None), default=None)
        return names, curves if behind is None else before(curves, behind), behind is not None


def _joined(chunks: Sequence[Sequence[Sequence[float]]]) -> Curve:
    steps, values, wall_seconds = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return Curve(steps.astype(np.int64), values.astype(np.float64), wall_seconds.astype(np.float64))


def _is_final(event: JobEvent) -> bool:
    return JobStatus(event.status).is_final


def _told(event: JobEvent, cursor: JobCursor) -> tuple[JobCursor, bytes]:
    """How far the stream is once it has told the event, and the event."""
    said = EventView.model_validate(event).model_dump(mode="json")
    cursor = replace(cursor, seq=event.seq)
    back = rewind(event)
    if back is not None:
        cursor, said = cursor.rewound(back), said | {"rewind_to": back}
    return cursor, frame("log" if is_note(event.status, event.message) else "status", cursor, said)


def is_note(status: str, message: str | None) -> bool:
    """Whether an event changed no status: those that say `running` say nothing else where a worker has claimed."""
    return status == JobStatus.RUNNING and message is not None


def rewind(event: JobEvent) -> int | None:
    """The step from which on all points are void and come again, because an attempt goes on from there.

    Workers from before `job_events.step` say it in words alone.
    """
    if event.step is not None or event.message is None or not is_note(event.status, event.message):
        return event.step
    if event.message == BEGAN_ANEW:
        return 0
    start, _, step = event.message.rpartition(" ")
    return int(step) if start == CONTINUED and step.isdecimal() else None


def _points(part: Curves, names: dict[int, str], step: int, total_steps: int | None) -> dict[str, Any]:
    return {
        "points": {names[name]: dict(_columns(curve)) for name, curve in part.items()},
        "step": step,
        "total_steps": total_steps,
    }


def _columns(curve: Curve) -> Iterator[tuple[str, list[Any]]]:
    yield "steps", curve.steps.tolist()
    yield "values", [value if value - value == 0 else None for value in curve.values.tolist()]
    yield "wall_seconds", [round(seconds, 4) for seconds in curve.wall_seconds.tolist()]
