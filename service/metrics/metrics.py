"""Metric points: append them in chunks, read curves back, thin them out faithfully.

A curve is three aligned arrays: `steps` (optimizer steps), `values`, and `wall_seconds` since the run began, over all
its attempts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.errors import UniqueViolation
from sqlalchemy import TextClause, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.specs.training import Target, TargetHit
from service.storage.session import transaction
from service.storage.tables import MetricChunk, MetricName

MAX_NAME = 128
MERGED_POINTS = 4096
"""Points of a chunk once the job has ended."""

Points = Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]
"""Name -> (steps, values, wall_seconds); steps increase strictly."""

_name_ids: dict[str, int] = {}


@dataclass(frozen=True)
class Curve:
    """All points of one metric of one job, by increasing step: three arrays of shape (points,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    wall_seconds: NDArray[np.float64]


def _name_id(name: str) -> int:
    """The id of an interned name; new names commit at once, so that a cached id is never rolled back."""
    if name not in _name_ids:
        if len(name) > MAX_NAME:
            raise ValueError(f"metric name longer than {MAX_NAME} characters: {name[:MAX_NAME]}...")
        with transaction() as session:
            session.execute(insert(MetricName).values(name=name).on_conflict_do_nothing())
            found = session.scalars(select(MetricName.id).where(MetricName.name == name)).one()
        _name_ids[name] = found  # not before the commit: another thread would use an id that nobody can see yet
    return _name_ids[name]


def append(session: Session, batches: Iterable[tuple[UUID, Points]]) -> None:
    """Store points of any number of jobs in one COPY.

    The caller holds the fence (the jobs' row locks). A batch that is sent again after a commit whose answer was lost
    is stored once: a chunk is known by its job, name and first step.
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
        _driver(session).cursor() as cursor,
        cursor.copy(f"COPY metric_chunks ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["uuid", "int4", "int4", "int4[]", "float8[]", "float4[]"])
        for row in rows:
            copy.write_row(row)


def merge(session: Session, job_id: UUID) -> None:
    """Rewrite a finished job's many small chunks as few large ones."""
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


def trim(session: Session, job_id: UUID, step: int, told: Collection[str]) -> None:
    """Forget what a lost attempt measured after `step`, where its successor goes on; and of `step`, all but `told`."""
    session.execute(TRIM, {"job": job_id, "step": step, "told": list(told)})
    session.execute(delete(MetricChunk).where(MetricChunk.job_id == job_id, func.cardinality(MetricChunk.steps) == 0))


TRIM = text(
    """
    UPDATE metric_chunks
    SET steps = steps[1:kept], values = values[1:kept], wall_seconds = wall_seconds[1:kept]
    FROM (SELECT name_id AS name, first_step AS first,
                 (SELECT count(*) FROM unnest(steps) AS s
                  WHERE s < :step OR s = :step AND metric_names.name = ANY(:told)) AS kept
          FROM metric_chunks JOIN metric_names ON metric_names.id = name_id
          WHERE job_id = :job AND steps[cardinality(steps)] >= :step) AS long
    WHERE job_id = :job AND name_id = long.name AND first_step = long.first
    """
)


def read(session: Session, job_ids: Sequence[UUID], names: Sequence[str] | None = None) -> dict[UUID, dict[str, Curve]]:
    """The curves of several jobs in one query; `names` None means all. Jobs without points are not in the answer.

    Measured for 20 curves of 100,000 points: 0.5 s; as lists of Python's numbers 2.3 s and three times the memory.
    """
    query = CHUNKS.format(of_names="" if names is None else "AND name = ANY(%(names)s)")
    curves: dict[UUID, dict[str, Curve]] = {}
    with _driver(session).cursor(binary=True) as cursor:
        cursor.execute(query, {"jobs": list(job_ids), "names": list(names or ())})
        for (job_id, name), chunks in groupby(cursor, itemgetter(0, 1)):
            _, _, *columns = zip(*chunks, strict=True)
            curves.setdefault(job_id, {})[name] = Curve(*map(_array, columns, ELEMENTS, KINDS))
    return curves


CHUNKS = """
    SELECT job_id, name, array_send(steps), array_send(values), array_send(wall_seconds)
    FROM metric_chunks JOIN metric_names ON metric_names.id = name_id
    WHERE job_id = ANY(%(jobs)s) {of_names}
    ORDER BY job_id, name, first_step
    """
HEAD_BYTES = 20
"""Before the elements of an array of one dimension: dimensions, flags, type, length, first index (`array_send`)."""
ELEMENTS = [np.dtype([("size", ">i4"), ("it", one)]) for one in (">i4", ">f8", ">f4")]
KINDS = (np.int64, np.float64, np.float64)


def _array(sent: Sequence[bytes], element: np.dtype[Any], kind: type[np.generic]) -> NDArray[Any]:
    """The elements of arrays, one after another, as they are between Postgres and its clients."""
    return np.frombuffer(b"".join(one[HEAD_BYTES:] for one in sent), element)["it"].astype(kind)


def _driver(session: Session) -> Connection[Any]:
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, Connection)
    return connection


def thin(curve: Curve, max_points: int) -> Curve:
    """At most `max_points` (>= 4) of a curve's points: the first, the last, and each bucket's smallest and largest.

    Points that are not finite survive as their bucket's extreme, so that a divergence is never hidden.
    """
    points = len(curve.steps)
    if points <= max_points:
        return curve
    keep = {0, points - 1}
    for bucket in np.array_split(np.arange(1, points - 1), (max_points - 2) // 2):
        values = curve.values[bucket]
        lost = np.flatnonzero(~np.isfinite(values))
        keep.add(int(bucket[lost[0] if len(lost) else values.argmin()]))
        keep.add(int(bucket[lost[-1] if len(lost) else values.argmax()]))
    index = np.array(sorted(keep))
    return Curve(curve.steps[index], curve.values[index], curve.wall_seconds[index])


# --- when a target was reached ---------------------------------------------------------------------------------------


def _hits_where(meets: str) -> TextClause:
    """First point of `metric` of each of `jobs` that meets a condition; in Postgres NaN exceeds every number.

    Measured for 50 curves of 500 points: 5 ms, with unnest() in FROM 10 ms, with the curves read into numpy 43 ms.
    """
    return text(
        f"""
        SELECT job, hit.step, hit.wall_seconds
        FROM unnest(CAST(:jobs AS uuid[])) AS job, LATERAL (
            SELECT point.step, point.wall_seconds
            FROM (SELECT unnest(steps) AS step, unnest(values) AS value, unnest(wall_seconds) AS wall_seconds
                  FROM metric_chunks
                  WHERE job_id = job AND name_id = (SELECT id FROM metric_names WHERE name = :metric)) AS point
            WHERE point.value {meets} AND point.value <> 'NaN'
            ORDER BY point.step LIMIT 1) AS hit
        """
    )


FIRST_HITS_ABOVE = _hits_where(">= :value")
FIRST_HITS_BELOW = _hits_where("<= :value")


def first_hits(session: Session, job_ids: Sequence[UUID], target: Target) -> dict[UUID, TargetHit]:
    """When each of these jobs first met the target, by its stored curve; those that did not are not in the answer."""
    falls = target.metric.endswith("loss")
    rows = session.execute(
        FIRST_HITS_BELOW if falls else FIRST_HITS_ABOVE,
        {"jobs": list(job_ids), "metric": target.metric, "value": target.value},
    )
    return {row.job: TargetHit(step=row.step, wall_seconds=row.wall_seconds) for row in rows}
