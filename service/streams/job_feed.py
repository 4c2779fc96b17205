"""The feed of a job: its changes of status, notes and points."""

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

MAX_POINTS = 20_000
"""Points per event, and per read: about a megabyte."""

# For each metric, the chunk that contains the step and the following ones, by primary key. Distinct names are found one
# by one (a loose index scan): a long run has tens of thousands of chunks, and the table of names contains those of all
# jobs. `next_step` is where the metric continues, within the read chunks or after them. Counting points unpacks whole
# chunks, so the query looks at about as many as fit into the page, judging by the size of the next one.
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
         FROM (SELECT greatest(1, :max_points / (cardinality(steps) * (SELECT count(id) FROM own))) AS max_chunks
               FROM metric_chunks WHERE job_id = :job AND name_id = own.id AND first_step > :step
               ORDER BY first_step LIMIT 1) AS chunks CROSS JOIN LATERAL (
              SELECT *, row_number() OVER ahead AS number, lead(first_step) OVER ahead AS next_step,
                     sum(cardinality(steps)) OVER ahead - cardinality(steps) AS before
              FROM (SELECT * FROM metric_chunks WHERE job_id = :job AND name_id = own.id AND first_step > :step
                    ORDER BY first_step LIMIT chunks.max_chunks + 1) AS next
              WINDOW ahead AS (ORDER BY first_step)) AS later
         WHERE number <= chunks.max_chunks
               AND (before = 0 OR before < :max_points / (SELECT count(id) FROM own)))) AS chunk
    ORDER BY own.id, chunk.first_step
    """
)


@dataclass(frozen=True)
class JobFeed:
    """A job.

    Args:
        job_id: id of the job.
        max_points: number of points to which a new stream reduces each past curve; None: all points.
    """

    job_id: UUID
    max_points: int | None = None

    def parse(self, text: str) -> JobCursor | None:
        """As `Feed.parse`."""
        return JobCursor.parse(text)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return self.job_id

    def read(self, session: Session, cursor: JobCursor | None, until: int | None) -> Delta[JobCursor]:
        """As `Feed.read`, with a page of points at a time. The final status comes after all points."""
        job = session.execute(
            select(Job.status, Job.reason, Job.seq, Job.step, Job.total_steps).where(Job.id == self.job_id)
        ).one_or_none()
        if job is None:
            raise NotFound(f"job {self.job_id} not found")
        if cursor is not None and cursor.seq > job.seq:  # the job is from a restored, older database
            cursor = None
        is_reduced = cursor is None and self.max_points is not None
        cursor = cursor or JobCursor()
        events = self._events(session, cursor)
        frames = []
        for event in events:
            if not _is_final(event):
                cursor, sent = _send(event, cursor)
                frames.append(sent)
        names, curves, has_more = self._history(session) if is_reduced else self._next(session, cursor)
        pages = parts(curves, cursor, MAX_POINTS)
        for page, after in islice(pages, None if is_reduced else 1):
            cursor = after
            frames.append(frame("metric", cursor, _points(page, names, job.step, job.total_steps)))
        if has_more or next(pages, None) is not None:
            return Delta(frames, cursor, has_more=True)
        for event in filter(_is_final, events):
            cursor, sent = _send(event, cursor)
            frames.append(sent)
        is_over = JobStatus(job.status).is_final
        if is_over:
            frames.append(frame("end", f"{cursor}{END}", {"status": job.status, "reason": job.reason}))
        return Delta(frames, cursor, is_last=is_over)

    def _events(self, session: Session, cursor: JobCursor) -> Sequence[JobEvent]:
        after = select(JobEvent).where(JobEvent.job_id == self.job_id, JobEvent.seq > cursor.seq)
        return session.scalars(after.order_by(JobEvent.seq)).all()

    def _history(self, session: Session) -> tuple[dict[int, str], Curves, bool]:
        """The names, all past points, reduced, and False: no more points follow."""
        assert self.max_points is not None
        curves = read.thinned(session, self.job_id, None, read.ALL_STEPS, self.max_points)
        rows = session.execute(select(MetricName.id, MetricName.name).where(MetricName.name.in_(curves)))
        names = {row.id: row.name for row in rows}
        return names, {id_: curves[name] for id_, name in names.items()}, False

    def _next(self, session: Session, cursor: JobCursor) -> tuple[dict[int, str], Curves, bool]:
        """The names, the next points (about `MAX_POINTS`, at least one if available), and whether more follow.

        The points are complete up to a common step; those beyond it are read again with the next page.
        """
        names: dict[int, str] = {}
        chunks: dict[int, list[Any]] = {}
        next_steps: dict[int, int | None] = {}
        page = {"job": self.job_id, "step": cursor.step, "max_points": MAX_POINTS}
        for id_, name, next_step, *columns in session.execute(CHUNKS, page):
            names[id_], next_steps[id_] = name, next_step
            chunks.setdefault(id_, []).append(columns)
        curves = beyond({id_: _joined(of_metric) for id_, of_metric in chunks.items()}, cursor)
        first_missing = min((step for step in next_steps.values() if step is not None), default=None)
        if first_missing is None:
            return names, curves, False
        return names, before(curves, first_missing), True


def _joined(chunks: Sequence[Sequence[Sequence[float]]]) -> Curve:
    steps, values, wall_seconds = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return Curve(steps.astype(np.int64), values.astype(np.float64), wall_seconds.astype(np.float64))


def _is_final(event: JobEvent) -> bool:
    return JobStatus(event.status).is_final


def _send(event: JobEvent, cursor: JobCursor) -> tuple[JobCursor, bytes]:
    """The cursor after the event, and the event as sent."""
    data = EventView.model_validate(event).model_dump(mode="json")
    cursor = replace(cursor, seq=event.seq)
    step = rewind(event)
    if step is not None:
        cursor, data = cursor.rewound(step), data | {"rewind_to": step}
    return cursor, frame("log" if is_note(event.status, event.message) else "status", cursor, data)


def is_note(status: str, message: str | None) -> bool:
    """Whether an event is a note and no change of status: the event of a claim has no message."""
    return status == JobStatus.RUNNING and message is not None


def rewind(event: JobEvent) -> int | None:
    """The step after which all points are void and will be measured again, if the event says that an attempt continues.

    Workers of versions without `job_events.step` state it only in the message.
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
