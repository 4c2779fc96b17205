"""Read curves back, and downsample them without losing extremes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service.storage.database import driver_connection, transaction


@dataclass(frozen=True)
class Curve:
    """Points of a metric of a job, by increasing step: three arrays of shape (points,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    wall_seconds: NDArray[np.float64]


def curves(
    session: Session, job_ids: Sequence[UUID], names: Sequence[str] | None = None
) -> dict[UUID, dict[str, Curve]]:
    """The curves of several jobs; `names` None: all metrics. Jobs without points are left out.

    Beyond `MAX_POINTS` points in all, curves are reduced to an equal share of them each, as by `thin`. 20 curves of
    100,000 points take 0.5 s.
    """
    count = NUMBER_OF_CURVES.format(of_names=_of_names(names))
    parameters = {"jobs": list(job_ids), "names": list(names or ())}
    with driver_connection(session).cursor() as cursor:
        (number,) = cursor.execute(count, parameters).fetchone() or (0,)
    return _read(session, CHUNKS.format(of_names=_of_names(names)), parameters, max(4, MAX_POINTS // max(1, number)))


MAX_POINTS = 2_000_000
"""Points of all curves that are read at once, 50 MB. Figures draw 160 points of a curve."""


NUMBER_OF_CURVES = """
    SELECT count(*)
    FROM (SELECT DISTINCT job_id, name_id FROM metric_chunks WHERE job_id = ANY(%(jobs)s)) AS curve
    JOIN metric_names ON metric_names.id = name_id
    WHERE true {of_names}
    """


CHUNKS = """
    SELECT job_id, name, array_send(steps), array_send(values), array_send(wall_seconds)
    FROM metric_chunks JOIN metric_names ON metric_names.id = name_id
    WHERE job_id = ANY(%(jobs)s) {of_names}
    ORDER BY job_id, name, first_step
    """


COUNTS = """
    SELECT name, sum(cardinality(steps))
    FROM metric_chunks JOIN metric_names ON metric_names.id = name_id
    WHERE job_id = %(job)s AND first_step < %(stop)s AND steps[cardinality(steps)] >= %(start)s {of_names}
    GROUP BY name
    """


ALL_STEPS = range(2**31)
CHUNKS_AT_ONCE = 64
HELD_POINTS = 100_000
"""Points of a curve that are held before it is reduced."""


HEAD_BYTES = 20
"""Header of a one-dimensional array from `array_send`: dimensions, flags, type, length, first index."""


ELEMENTS = [np.dtype([("size", ">i4"), ("value", type_)]) for type_ in (">i4", ">f8", ">f4")]


KINDS = (np.int64, np.float64, np.float64)


def _array(sent: Sequence[bytes], element: np.dtype[Any], kind: type[np.generic]) -> NDArray[Any]:
    """Concatenate arrays in PostgreSQL's binary format."""
    return np.frombuffer(b"".join(array[HEAD_BYTES:] for array in sent), element)["value"].astype(kind)


def count(session: Session, job_id: UUID, names: Sequence[str] | None, steps: range) -> dict[str, int]:
    """Number of stored points by metric; of a chunk that is partly outside of `steps`, all points."""
    with driver_connection(session).cursor() as cursor:
        cursor.execute(COUNTS.format(of_names=_of_names(names)), _parameters(job_id, names, steps))
        return dict(cursor.fetchall())


def thinned(
    session: Session, job_id: UUID, names: Sequence[str] | None, steps: range, max_points: int | None
) -> dict[str, Curve]:
    """The curves of a job within `steps`, each reduced to `max_points` (None: all points)."""
    query = CHUNKS.format(
        of_names=_of_names(names) + " AND first_step < %(stop)s AND steps[cardinality(steps)] >= %(start)s"
    )
    return _read(session, query, _parameters(job_id, names, steps), max_points, steps).get(job_id, {})


def _read(
    session: Session, query: str, parameters: dict[str, Any], max_points: int | None, steps: range = ALL_STEPS
) -> dict[UUID, dict[str, Curve]]:
    """The curves of the chunks of a query, within `steps`, each reduced to `max_points`.

    Chunks are read a few at a time, so that the memory depends on `max_points`, not on the number of points.
    """
    found: dict[UUID, dict[str, Curve]] = {}
    with driver_connection(session).cursor("curves", binary=True) as cursor:
        cursor.itersize = CHUNKS_AT_ONCE
        cursor.execute(query, parameters)
        for (job_id, name), chunks in groupby(cursor, itemgetter(0, 1)):
            curve = _joined((_within(_curve(chunk), steps) for chunk in chunks), max_points)
            if len(curve.steps):
                found.setdefault(job_id, {})[name] = curve
    return found


def pages(job_id: UUID) -> Iterator[tuple[str, Curve]]:
    """All points of a job, some 65,000 at a time, with the names of their metrics.

    Each page is read in a transaction of its own, so that a slow reader holds none.
    """
    with transaction() as session:
        rows = driver_connection(session).execute(NAMES, {"job": job_id}).fetchall()
    for id_, name in rows:
        after = -1
        while True:
            with transaction() as session, driver_connection(session).cursor(binary=True) as cursor:
                cursor.execute(NEXT_CHUNKS, {"job": job_id, "name": id_, "after": after, "chunks": CHUNKS_IN_PAGE})
                parts = [_within(_curve((job_id, name, *row)), range(after + 1, ALL_STEPS.stop)) for row in cursor]
            if not parts:
                break
            page = _concatenated(parts)
            after = int(page.steps[-1])
            yield name, page


CHUNKS_IN_PAGE = 16


NAMES = """
    SELECT id, name FROM metric_names
    WHERE id IN (SELECT name_id FROM metric_chunks WHERE job_id = %(job)s) ORDER BY name
    """


# From the chunk that contains the next step: chunks are merged when the job ends.
NEXT_CHUNKS = """
    SELECT array_send(steps), array_send(values), array_send(wall_seconds)
    FROM metric_chunks
    WHERE job_id = %(job)s AND name_id = %(name)s AND first_step >= coalesce(
              (SELECT max(first_step) FROM metric_chunks
               WHERE job_id = %(job)s AND name_id = %(name)s AND first_step <= %(after)s), 0)
          AND steps[cardinality(steps)] > %(after)s
    ORDER BY first_step LIMIT %(chunks)s
    """


def _joined(parts: Iterable[Curve], max_points: int | None) -> Curve:
    """The parts as one curve; reduced whenever they have many points, so that extremes remain."""
    held: list[Curve] = []
    points = 0
    for part in parts:
        held.append(part)
        points += len(part.steps)
        if max_points is not None and points > HELD_POINTS + 4 * max_points:
            held = [thin(_concatenated(held), 2 * max_points)]
            points = len(held[0].steps)
    whole = _concatenated(held)
    return whole if max_points is None else thin(whole, max_points)


def _concatenated(curves: Sequence[Curve]) -> Curve:
    return Curve(
        np.concatenate([curve.steps for curve in curves]),
        np.concatenate([curve.values for curve in curves]),
        np.concatenate([curve.wall_seconds for curve in curves]),
    )


def _curve(row: tuple[Any, ...]) -> Curve:
    return Curve(*map(_array, ([column] for column in row[2:]), ELEMENTS, KINDS))


def _within(curve: Curve, steps: range) -> Curve:
    start, stop = np.searchsorted(curve.steps, [steps.start, steps.stop])
    part = slice(start, stop)
    return Curve(curve.steps[part], curve.values[part], curve.wall_seconds[part])


def _of_names(names: Sequence[str] | None) -> str:
    return "" if names is None else "AND name = ANY(%(names)s)"


def _parameters(job_id: UUID, names: Sequence[str] | None, steps: range) -> dict[str, Any]:
    return {"job": job_id, "jobs": [job_id], "names": list(names or ()), "start": steps.start, "stop": steps.stop}


def thin(curve: Curve, max_points: int) -> Curve:
    """Reduce a curve to `max_points` (>= 4): the first, the last, and the minimum and maximum of each bucket.

    Points that are not finite count as extremes, so that a divergence stays visible.
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
