"""The points of curves that a stream has not sent yet, in pages with a cursor each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from service.metrics.read import Curve
from service.streams.cursor import JobCursor

Curves = Mapping[int, Curve]
"""Points by id of the metric's name; metrics without points are left out."""


def beyond(curves: Curves, cursor: JobCursor) -> Curves:
    """The points after the cursor."""
    rest = {}
    for name, curve in curves.items():
        first = cursor.step + 1 if name in cursor.names else cursor.step
        rest[name] = _between(curve, int(np.searchsorted(curve.steps, first)), len(curve.steps))
    return {name: curve for name, curve in rest.items() if len(curve.steps)}


def before(curves: Curves, step: int) -> Curves:
    """The points before `step`."""
    rest = {name: _between(curve, 0, int(np.searchsorted(curve.steps, step))) for name, curve in curves.items()}
    return {name: curve for name, curve in rest.items() if len(curve.steps)}


def parts(curves: Curves, cursor: JobCursor, max_points: int) -> Iterator[tuple[Curves, JobCursor]]:
    """Points after the cursor, in pages of about `max_points`, each with the cursor after it.

    A step is never divided, so that a page of very many metrics may be larger.
    """
    if not curves:
        return
    steps = np.sort(np.concatenate([curve.steps for curve in curves.values()]))
    starts = dict.fromkeys(curves, 0)
    for last in np.unique(np.append(steps[max_points - 1 :: max_points], steps[-1])).tolist():
        part = {}
        for name, curve in curves.items():
            stop = int(np.searchsorted(curve.steps, last, "right"))
            if stop > starts[name]:
                part[name] = _between(curve, starts[name], stop)
            starts[name] = stop
        at_last = frozenset(name for name, curve in part.items() if curve.steps[-1] == last)
        cursor = replace(cursor, step=last, names=at_last | (cursor.names if cursor.step == last else frozenset()))
        yield part, cursor


def _between(curve: Curve, start: int, stop: int) -> Curve:
    return Curve(curve.steps[start:stop], curve.values[start:stop], curve.wall_seconds[start:stop])
