"""Store metric points: append chunks, merge them when a job ends, trim those of a lost attempt."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.storage.database import driver_connection, transaction
from service.storage.tables import MetricChunk, MetricName

MAX_NAME = 128


MERGED_POINTS = 4096
"""Points per chunk after the job has ended."""


Points = Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]
"""Name -> (steps, values, wall_seconds); steps increase strictly."""


_name_ids: dict[str, int] = {}


def _name_id(name: str) -> int:
    """The id of a metric's name. New names commit in a transaction of their own, so that cached ids stay valid."""
    if name not in _name_ids:
        if len(name) > MAX_NAME:
            raise ValueError(f"metric name longer than {MAX_NAME} characters: {name[:MAX_NAME]}...")
        with transaction() as session:
            session.execute(insert(MetricName).values(name=name).on_conflict_do_nothing())
            name_id = session.scalars(select(MetricName.id).where(MetricName.name == name)).one()
        _name_ids[name] = name_id  # after the commit, or another thread would use an id that is not visible yet
    return _name_ids[name]


def append(session: Session, batches: Iterable[tuple[UUID, Points]]) -> None:
    """Store points of any number of jobs in one COPY.

    The caller holds the fence (the jobs' row locks). A batch that is sent again, after a commit whose response was
    lost, is stored once: job, name and first step identify a chunk.
    """
    rows = [
        (job_id, _name_id(name), steps[0], list(steps), list(values), list(wall_seconds))
        for job_id, points in batches
        for name, (steps, values, wall_seconds) in points.items()
        if steps
    ]
    if not rows:
        return
    try:
        with session.begin_nested():
            _copy(session, rows)
    except UniqueViolation:
        columns = [column.key for column in MetricChunk.__table__.columns]
        chunks = [dict(zip(columns, row, strict=True)) for row in rows]
        session.execute(insert(MetricChunk).on_conflict_do_nothing(), chunks)


def _copy(session: Session, rows: Iterable[tuple[object, ...]]) -> None:
    columns = "job_id, name_id, first_step, steps, values, wall_seconds"
    with (
        driver_connection(session).cursor() as cursor,
        cursor.copy(f"COPY metric_chunks ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["uuid", "int4", "int4", "int4[]", "float8[]", "float4[]"])
        for row in rows:
            copy.write_row(row)


def merge(session: Session, job_id: UUID) -> None:
    """Rewrite the small chunks of a finished job as few large ones."""
    chunks = select(func.count()).where(MetricChunk.job_id == job_id).group_by(MetricChunk.name_id)
    if session.scalar(select(func.max(chunks.subquery().c[0]))) in (None, 1):
        return
    session.execute(
        text(
            """
            WITH old AS (DELETE FROM metric_chunks WHERE job_id = :job RETURNING *),
                 points AS (
                     SELECT name_id, p.step, p.value, p.wall,
                            (row_number() OVER (PARTITION BY name_id ORDER BY p.step) - 1) / :size AS chunk
                     FROM old, unnest(steps, values, wall_seconds) AS p(step, value, wall))
            INSERT INTO metric_chunks (job_id, name_id, first_step, steps, values, wall_seconds)
            SELECT :job, name_id, min(step), array_agg(step ORDER BY step), array_agg(value ORDER BY step),
                   array_agg(wall ORDER BY step)
            FROM points GROUP BY name_id, chunk
            """
        ),
        {"job": job_id, "size": MERGED_POINTS},
    )


def trim(session: Session, job_id: UUID, step: int, kept_metrics: Collection[str]) -> None:
    """Delete the points after `step`, from which the next attempt continues, and at `step` all but `kept_metrics`."""
    session.execute(TRIM, {"job": job_id, "step": step, "kept_metrics": list(kept_metrics)})
    session.execute(delete(MetricChunk).where(MetricChunk.job_id == job_id, func.cardinality(MetricChunk.steps) == 0))


TRIM = text(
    """
    UPDATE metric_chunks
    SET steps = steps[1:kept_points], values = values[1:kept_points], wall_seconds = wall_seconds[1:kept_points]
    FROM (SELECT name_id AS name, first_step AS first,
                 (SELECT count(*) FROM unnest(steps) AS s
                  WHERE s < :step OR s = :step AND metric_names.name = ANY(:kept_metrics)) AS kept_points
          FROM metric_chunks JOIN metric_names ON metric_names.id = name_id
          WHERE job_id = :job AND steps[cardinality(steps)] >= :step) AS long
    WHERE job_id = :job AND name_id = long.name AND first_step = long.first
    """
)
