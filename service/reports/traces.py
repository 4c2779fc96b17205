"""Mean curves and bands of several runs, and their endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.comparisons.answers import GroupView, TaskAnswer
from service.metrics.read import Curve
from service.specs.summary import Target

Along = Literal["steps", "wall_seconds"]
Array = NDArray[np.float64]

MAX_POINTS = 160
"""Maximum number of points of a curve in the page: one per two typographic points of its width."""


@dataclass(frozen=True)
class Trace:
    """Finite points of a run's curve, by increasing x; averages of neighboring points beyond `MAX_POINTS`."""

    x: Array
    y: Array
    averaged: tuple[Array, Array] | None = None
    """The original points, x and y, if these are averages."""

    @property
    def points(self) -> tuple[Array, Array]:
        """All original points, x and y."""
        return self.averaged or (self.x, self.y)


@dataclass(frozen=True)
class Band:
    """Mean and range of several runs, over the x that all of them cover; arrays of shape (points,).

    Only the mean uses averaged points: the range includes every original point, at the x nearest to it.
    """

    x: Array
    mean: Array
    low: Array
    high: Array
    runs: int


@dataclass(frozen=True)
class GroupCurves:
    """Curves of the finished and of the diverged runs of a group: one mapping, metric -> curve, per run."""

    finished: list[Mapping[str, Curve]]
    diverged: list[Mapping[str, Curve]]

    @classmethod
    def of(cls, group: GroupView, curves: Mapping[UUID, Mapping[str, Curve]]) -> GroupCurves:
        """The curves of a group; the mapping of a run without curves is empty."""
        diverged = set(group.diverged_jobs)
        return cls(
            [curves.get(job, {}) for job in group.jobs if job not in diverged],
            [curves.get(job, {}) for job in group.diverged_jobs],
        )

    def traces(self, metric: str, along: Along) -> list[Trace]:
        """Curves of a metric, of the finished runs that have it."""
        return [finite for run in self.finished if (finite := trace(run.get(metric), along))]

    def diverged_traces(self, metric: str, along: Along) -> list[Trace]:
        """Finite parts of the curves of a metric, of the diverged runs that have it."""
        return [finite for run in self.diverged if (finite := trace(run.get(metric), along))]

    def endpoints(self, metric: str) -> list[float]:
        """The last value of each finished run."""
        return [float(trace.y[-1]) for trace in self.traces(metric, "steps")]


def curves_by_group(task: TaskAnswer, curves: Mapping[UUID, Mapping[str, Curve]]) -> dict[str, GroupCurves]:
    """Label -> curves of its runs, in the order of the task's groups."""
    return {group.label: GroupCurves.of(group, curves) for group in task.groups}


def watched_metric(task: TaskAnswer, runs: Mapping[str, GroupCurves]) -> str:
    """The validation metric to draw: the counterpart of the endpoint, or the loss if no run has recorded that."""
    metric = "val_loss" if task.metric.endswith("loss") else "val_accuracy"
    recorded = {name for group in runs.values() for run in (*group.finished, *group.diverged) for name in run}
    return "val_loss" if metric not in recorded and "val_loss" in recorded else metric


def trace(curve: Curve | None, along: Along) -> Trace | None:
    """The finite points of a curve, averaged beyond `MAX_POINTS`; None if no point is finite."""
    if curve is None:
        return None
    x = np.asarray(curve.steps if along == "steps" else curve.wall_seconds, np.float64)
    finite = np.isfinite(curve.values) & np.isfinite(x)
    if not finite.any():
        return None
    return _thinned(x[finite], np.asarray(curve.values, np.float64)[finite])


def _thinned(x: Array, y: Array) -> Trace:
    """Average neighboring points beyond `MAX_POINTS`; the last point is kept unchanged."""
    if len(x) <= MAX_POINTS:
        return Trace(x, y)
    parts = np.array_split(np.arange(len(x) - 1), MAX_POINTS - 1)
    return Trace(
        np.append([x[part].mean() for part in parts], x[-1]),
        np.append([y[part].mean() for part in parts], y[-1]),
        averaged=(x, y),
    )


def band(traces: Sequence[Trace]) -> Band | None:
    """Mean and range of the runs over the x that all of them cover; None if they do not overlap."""
    if not traces:
        return None
    start, end = max(trace.x[0] for trace in traces), min(trace.x[-1] for trace in traces)
    if start > end:
        return None
    x = np.unique(np.concatenate([trace.x for trace in traces] + [np.array([start, end])]))
    x = x[(x >= start) & (x <= end)]
    if len(x) > MAX_POINTS:
        x = np.linspace(start, end, MAX_POINTS)
    values = np.stack([np.interp(x, trace.x, trace.y) for trace in traces])  # (runs, points)
    low, high = values.min(axis=0), values.max(axis=0)
    start = max(trace.points[0][0] for trace in traces)  # of the original points: averages start a little later
    for trace in traces:
        _widen(low, high, x, trace, (start, end))
    return Band(x, values.mean(axis=0), low, high, len(traces))


def _widen(low: Array, high: Array, x: Array, trace: Trace, between: tuple[float, float]) -> None:
    """Widen the range so that it includes every original point of a run in `between`, at the x nearest to it."""
    at, values = trace.points
    inside = (at >= between[0]) & (at <= between[1])
    nearest = np.searchsorted((x[1:] + x[:-1]) / 2, at[inside])
    np.minimum.at(low, nearest, values[inside])
    np.maximum.at(high, nearest, values[inside])


def first_hit(run: Mapping[str, Curve], target: Target) -> tuple[float, bool] | None:
    """(seconds until a run met a target, True), or (its duration, False) if it did not; None without a curve."""
    curve = run.get(target.metric)
    if curve is None or not len(curve.values):
        return None
    with np.errstate(invalid="ignore"):
        met = curve.values <= target.value if target.metric.endswith("loss") else curve.values >= target.value
    at = np.flatnonzero(met)
    return float(curve.wall_seconds[at[0] if len(at) else -1]), bool(len(at))
