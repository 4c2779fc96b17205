"""Feeds of several jobs: of all jobs and comparisons, or of one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.specs.states import ComparisonStatus
from service.storage.tables import Comparison
from service.streams.cursor import END, ManyCursor
from service.streams.feed import Delta, Steps, frame, instant
from service.streams.job_feed import is_note

PAGE = 2000
"""Events that are read at a time, by a stream that resumes after a long time."""

JOB, COMPARISON = 0, 1
"""Kinds of events; within a transaction, those of jobs come first."""

PRESENT = text(
    """
    SELECT pg_snapshot_xmin(now)::text::bigint AS oldest_open, pg_snapshot_xmax(now)::text::bigint AS next
    FROM pg_current_snapshot() AS now
    """
)
# The end of the page is found by the index alone, so that a stream that is far behind does not sort all its events.
# LIMIT 1 makes PostgreSQL look up each job; it would otherwise overestimate their number and read the whole table.
EVENTS = text(
    f"""
    WITH bound AS (
        SELECT coalesce(
            (SELECT xid + 1 FROM job_events WHERE xid >= :xid AND xid < :until
             ORDER BY xid OFFSET :sent + :page LIMIT 1), :until) AS xid)
    SELECT page.*, job.*, (SELECT name FROM comparisons WHERE id = page.id) AS comparison,
           CAST(:comparison AS uuid) IS NULL OR page.id = :comparison OR EXISTS (
               SELECT FROM comparison_cells WHERE comparison_id = :comparison AND job_id = page.id) AS is_wanted
    FROM (SELECT * FROM (
              SELECT xid, {JOB} AS kind, job_id AS id, seq, attempt, status, reason, message, at
              FROM job_events WHERE xid >= :xid AND xid < (SELECT xid FROM bound)
              UNION ALL
              SELECT xid, {COMPARISON}, comparison_id, id, NULL, status, NULL, message, at
              FROM comparison_events WHERE xid >= :xid AND xid < (SELECT xid FROM bound)) AS event
          ORDER BY xid, kind, id, seq OFFSET :sent LIMIT :page) AS page
         LEFT JOIN LATERAL (
             SELECT dataset, model, optimizer, users.name AS user
             FROM jobs JOIN users ON users.id = user_id WHERE jobs.id = page.id LIMIT 1) AS job ON true
    ORDER BY page.xid, page.kind, page.id, page.seq
    """
)
RUNNING = text(
    """
    SELECT id, step, total_steps FROM jobs
    WHERE status = 'running' AND (CAST(:comparison AS uuid) IS NULL OR id IN (
        SELECT job_id FROM comparison_cells WHERE comparison_id = :comparison))
    """
)
# The comparison and its jobs have ended, and all their events have been read.
IS_OVER = text(
    """
    SELECT status <> 'running'
           AND NOT EXISTS (SELECT FROM comparison_events WHERE comparison_id = :comparison AND xid >= :until)
           AND NOT EXISTS (
               SELECT FROM comparison_cells AS cell JOIN jobs ON jobs.id = job_id
               WHERE cell.comparison_id = :comparison AND (jobs.status IN ('queued', 'running') OR EXISTS (
                   SELECT FROM job_events WHERE job_events.job_id = jobs.id AND xid >= :until)))
    FROM comparisons WHERE id = :comparison
    """
)


@dataclass(frozen=True)
class AllFeed:
    """All jobs and comparisons; without a cursor, it starts with the next event."""

    def parse(self, text: str) -> ManyCursor | None:
        """As `Feed.parse`."""
        return ManyCursor.parse(text)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return None

    def read(self, session: Session, cursor: ManyCursor | None, until: int | None) -> Delta[ManyCursor]:
        """As `Feed.read`."""
        start, until = _bounds(session, cursor, until)
        return _events(session, None, start, until)


@dataclass(frozen=True)
class ComparisonFeed:
    """A comparison and its jobs; it starts with the comparison's status and ends when all of them have ended."""

    comparison_id: UUID

    def parse(self, text: str) -> ManyCursor | None:
        """As `Feed.parse`."""
        return ManyCursor.parse(text)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return None

    def read(self, session: Session, cursor: ManyCursor | None, until: int | None) -> Delta[ManyCursor]:
        """As `Feed.read`."""
        comparison = session.get(Comparison, self.comparison_id)
        if comparison is None:
            raise NotFound(f"comparison {self.comparison_id} not found")
        start, until = _bounds(session, cursor, until)
        delta = _events(session, self.comparison_id, start, until)
        frames = [*delta.frames]
        if cursor is None:
            frames.insert(0, frame("status", start, _status(comparison)))
        over = {"comparison": self.comparison_id, "until": until}
        is_over = not delta.has_more and bool(session.scalar(IS_OVER, over))
        if is_over:
            end = {"status": comparison.status, "message": comparison.message}
            frames.append(frame("end", f"{delta.cursor}{END}", end))
        return Delta(frames, delta.cursor, is_over, delta.has_more, delta.progress)


def _bounds(session: Session, cursor: ManyCursor | None, until: int | None) -> tuple[ManyCursor, int]:
    """The cursor that a stream continues from, and the first transaction that it must not read yet."""
    present = session.execute(PRESENT).one()
    if cursor is None or cursor.xid > present.next:  # a cursor of another server
        cursor = ManyCursor(present.oldest_open)
    return cursor, min(present.oldest_open, until or present.oldest_open)


def _events(session: Session, comparison: UUID | None, cursor: ManyCursor, until: int) -> Delta[ManyCursor]:
    page = {"xid": cursor.xid, "sent": cursor.count, "until": until, "page": PAGE, "comparison": comparison}
    rows = session.execute(EVENTS, page).all() if cursor.xid < until else []
    frames = []
    for row in rows:
        cursor = ManyCursor(row.xid, cursor.count + 1 if row.xid == cursor.xid else 1)
        if row.is_wanted:
            is_log = row.kind == JOB and is_note(row.status, row.message)
            frames.append(frame("log" if is_log else "status", cursor, _event(row)))
    has_more = len(rows) == PAGE
    if not has_more and cursor.xid < until:
        cursor = ManyCursor(until)
    return Delta(frames, cursor, has_more=has_more, progress=_running(session, comparison))


def _event(row: Row[Any]) -> dict[str, Any]:
    if row.kind == COMPARISON:
        event = {"comparison": str(row.id), "name": row.comparison, "status": row.status}
    else:
        names = ("seq", "attempt", "status", "reason", "dataset", "model", "optimizer", "user")
        event = {"job": str(row.id)} | {name: getattr(row, name) for name in names}
    return event | {"message": row.message, "at": instant(row.at)}


def _status(comparison: Comparison) -> dict[str, Any]:
    return {
        "comparison": str(comparison.id),
        "name": comparison.name,
        "status": ComparisonStatus(comparison.status),
        "message": comparison.message,
        "at": instant(comparison.finished_at or comparison.created_at),
    }


def _running(session: Session, comparison: UUID | None) -> Steps:
    return {row.id: (row.step, row.total_steps) for row in session.execute(RUNNING, {"comparison": comparison})}


def progress(before: Steps, now: Steps, cursor: ManyCursor) -> Sequence[bytes]:
    """An event with the jobs that have progressed; none if there are no such jobs."""
    moved = [
        {"job": str(job), "step": step, "total_steps": total}
        for job, (step, total) in now.items()
        if before.get(job) != (step, total)
    ]
    return [frame("metric", cursor, {"progress": moved})] if moved else []
