"""Streams of many jobs: all of them and all comparisons, or those of one comparison."""

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
"""Events that are read at once, by a stream that resumes after long."""

JOB, COMPARISON = 0, 1
"""What an event is about; those of jobs come first in a transaction."""

PRESENT = text(
    """
    SELECT pg_snapshot_xmin(now)::text::bigint AS oldest_open, pg_snapshot_xmax(now)::text::bigint AS next
    FROM pg_current_snapshot() AS now
    """
)
# The page's end is found by the index alone, so that a stream that is far behind does not sort all that lies before
# it; and LIMIT 1 has each job looked up, where Postgres expects so many that it would read them all.
EVENTS = text(
    f"""
    WITH bound AS (
        SELECT coalesce(
            (SELECT xid + 1 FROM job_events WHERE xid >= :xid AND xid < :until
             ORDER BY xid OFFSET :told + :page LIMIT 1), :until) AS xid)
    SELECT page.*, job.*, (SELECT name FROM comparisons WHERE id = page.id) AS comparison,
           CAST(:comparison AS uuid) IS NULL OR page.id = :comparison OR EXISTS (
               SELECT FROM comparison_cells WHERE comparison_id = :comparison AND job_id = page.id) AS is_wanted
    FROM (SELECT * FROM (
              SELECT xid, {JOB} AS kind, job_id AS id, seq, attempt, status, reason, message, at
              FROM job_events WHERE xid >= :xid AND xid < (SELECT xid FROM bound)
              UNION ALL
              SELECT xid, {COMPARISON}, comparison_id, id, NULL, status, NULL, message, at
              FROM comparison_events WHERE xid >= :xid AND xid < (SELECT xid FROM bound)) AS event
          ORDER BY xid, kind, id, seq OFFSET :told LIMIT :page) AS page
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
# Nothing of it runs, and there is no event of it that will be told later.
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
    """Every job and every comparison; without a cursor it begins with what happens from now on."""

    def parse(self, written: str) -> ManyCursor | None:
        """As `Feed.parse`."""
        return ManyCursor.parse(written)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return None

    def read(self, session: Session, cursor: ManyCursor | None, until: int | None) -> Delta[ManyCursor]:
        """As `Feed.read`."""
        told, until = _bounds(session, cursor, until)
        return _events(session, None, told, until)


@dataclass(frozen=True)
class ComparisonFeed:
    """One comparison and its jobs; it begins with the comparison as it is, and ends when nothing of it runs."""

    comparison_id: UUID

    def parse(self, written: str) -> ManyCursor | None:
        """As `Feed.parse`."""
        return ManyCursor.parse(written)

    def watched(self) -> UUID | None:
        """As `Feed.watched`."""
        return None

    def read(self, session: Session, cursor: ManyCursor | None, until: int | None) -> Delta[ManyCursor]:
        """As `Feed.read`."""
        comparison = session.get(Comparison, self.comparison_id)
        if comparison is None:
            raise NotFound(f"comparison {self.comparison_id} not found")
        told, until = _bounds(session, cursor, until)
        delta = _events(session, self.comparison_id, told, until)
        frames = [*delta.frames]
        if cursor is None:
            frames.insert(0, frame("status", told, _as_it_is(comparison)))
        over = {"comparison": self.comparison_id, "until": until}
        is_over = not delta.has_more and bool(session.scalar(IS_OVER, over))
        if is_over:
            end = {"status": comparison.status, "message": comparison.message}
            frames.append(frame("end", f"{delta.cursor}{END}", end))
        return Delta(frames, delta.cursor, is_over, delta.has_more, delta.progress)


def _bounds(session: Session, cursor: ManyCursor | None, until: int | None) -> tuple[ManyCursor, int]:
    """Where a stream goes on, and which transaction is the first that it must not tell of yet."""
    present = session.execute(PRESENT).one()
    if cursor is None or cursor.xid > present.next:  # the future, of another server
        cursor = ManyCursor(present.oldest_open)
    return cursor, min(present.oldest_open, until or present.oldest_open)


def _events(session: Session, comparison: UUID | None, told: ManyCursor, until: int) -> Delta[ManyCursor]:
    asked = {"xid": told.xid, "told": told.told, "until": until, "page": PAGE, "comparison": comparison}
    rows = session.execute(EVENTS, asked).all() if told.xid < until else []
    frames = []
    for row in rows:
        told = ManyCursor(row.xid, told.told + 1 if row.xid == told.xid else 1)
        if row.is_wanted:
            frames.append(
                frame("log" if is_note(row.status, row.message) and not row.kind else "status", told, _said(row))
            )
    has_more = len(rows) == PAGE
    if not has_more and told.xid < until:
        told = ManyCursor(until)
    return Delta(frames, told, has_more=has_more, progress=_running(session, comparison))


def _said(row: Row[Any]) -> dict[str, Any]:
    if row.kind == COMPARISON:
        said = {"comparison": str(row.id), "name": row.comparison, "status": row.status}
    else:
        names = ("seq", "attempt", "status", "reason", "dataset", "model", "optimizer", "user")
        said = {"job": str(row.id)} | {name: getattr(row, name) for name in names}
    return said | {"message": row.message, "at": instant(row.at)}


def _as_it_is(comparison: Comparison) -> dict[str, Any]:
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
    """The event that says which jobs have moved; none where none has."""
    moved = [
        {"job": str(job), "step": step, "total_steps": total}
        for job, (step, total) in now.items()
        if before.get(job) != (step, total)
    ]
    return [frame("metric", cursor, {"progress": moved})] if moved else []
