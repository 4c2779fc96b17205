"""Thins curves of very many points while they are reported, so that a job's metrics stay bounded."""

from __future__ import annotations

import math
from typing import NamedTuple

KEPT_POINTS = 20_000
"""Points of a metric up to which all are kept. Each doubling of their number beyond it adds half as many."""


class Point(NamedTuple):
    """A value of a metric at a step, and the seconds since the start of the run."""

    step: int
    value: float
    wall_seconds: float


class Thinner:
    """Keeps the least and the greatest value of each window of points, in order of their steps.

    Windows have one point until there are `KEPT_POINTS`, then 4, and twice as many at each doubling of the number of
    points. Values that are not finite count as extremes, so that a divergence stays visible.
    """

    def __init__(self) -> None:
        self._points = 0
        self._window: list[Point] = []

    def add(self, point: Point) -> list[Point]:
        """The points to report after this one."""
        self._points += 1
        if self._points <= KEPT_POINTS:
            return [point]
        self._window.append(point)
        return self.flush() if len(self._window) >= 4 * 2 ** int(math.log2(self._points / KEPT_POINTS)) else []

    def flush(self, *, with_last: bool = False) -> list[Point]:
        """The points to report of an incomplete window, for example before a checkpoint.

        `with_last`: also its last point, at the end of a curve.
        """
        window, self._window = self._window, []
        if len(window) <= 2:
            return window
        lost = [point for point in window if not math.isfinite(point.value)]
        first, last = (lost[0], lost[-1]) if lost else (min(window, key=_value), max(window, key=_value))
        return sorted({first, last, window[-1]} if with_last else {first, last})


def _value(point: Point) -> float:
    return point.value
