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
from service.specs.outcome import Target

Along = Literal["steps", "wall_seconds"]
Array = NDArray[np.float64]

MOST_POINTS = 160
"""Maximum number of points of a curve in the page: one for every two typographic points."""


@dataclass(frozen=True)
class Trace:
    """Finite points of a run's curve, by increasing x; neighboring ones averaged beyond `MOST_POINTS`."""

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
    """Mean, lowest and highest of several runs, as far as all of them go; arrays of shape (points,).

    Averages are for the mean alone: every point of every run lies within the range at the x that is nearest to it.
    """

    x: Array
    mean: Array
    low: Array
    high: Array
    runs: int


@dataclass(frozen=True)
class RunsOf:
    """The curves of a group's runs, metric -> curve: of those that finished, and of those that diverged."""

    finished: list[Mapping[str, Curve]]
    diverged: list[Mapping[str, Curve]]

    @classmethod
    def group(cls, group: GroupView, curves: Mapping[UUID, Mapping[str, Curve]]) -> RunsOf:
        """Those of a group; a run without curves has none."""
        lost = set(group.diverged_jobs)
        return cls(
            [curves.get(job, {}) for job in group.jobs if job not in lost],
            [curves.get(job, {}) for job in group.diverged_jobs],
        )

    def traces(self, metric: str, along: Along) -> list[Trace]:
        """The curves of the finished runs that have one."""
        return [found for run in self.finished if (found := trace(run.get(metric), along))]

    def diverged_traces(self, metric: str, along: Along) -> list[Trace]:
        """The curves of the others, as far as they are finite."""
        return [found for run in self.diverged if (found := trace(run.get(metric), along))]

    def endpoints(self, metric: str) -> list[float]:
        """The last value of each finished run."""
        return [float(one.y[-1]) for one in self.traces(metric, "steps")]


def runs_of(task: TaskAnswer, curves: Mapping[UUID, Mapping[str, Curve]]) -> dict[str, RunsOf]:
    """Label -> the curves of its runs, in the order of the table."""
    return {group.label: RunsOf.group(group, curves) for group in task.groups}


def watched_metric(task: TaskAnswer, runs: Mapping[str, RunsOf]) -> str:
    """The validation metric whose curves are drawn: of the same kind as the endpoint, or else the loss."""
    metric = "val_loss" if task.metric.endswith("loss") else "val_accuracy"
    measured = {name for of in runs.values() for run in (*of.finished, *of.diverged) for name in run}
    return "val_loss" if metric not in measured and "val_loss" in measured else metric


def trace(curve: Curve | None, along: Along) -> Trace | None:
    """The finite points of a curve, averaged where there are too many; None without any."""
    if curve is None:
        return None
    x = np.asarray(curve.steps if along == "steps" else curve.wall_seconds, np.float64)
    finite = np.isfinite(curve.values) & np.isfinite(x)
    if not finite.any():
        return None
    return _thinned(x[finite], np.asarray(curve.values, np.float64)[finite])


def _thinned(x: Array, y: Array) -> Trace:
    """Means of neighbouring points where there are more than `MOST_POINTS`; the last point stays as it is."""
    if len(x) <= MOST_POINTS:
        return Trace(x, y)
    parts = np.array_split(np.arange(len(x) - 1), MOST_POINTS - 1)
    return Trace(
        np.append([x[part].mean() for part in parts], x[-1]),
        np.append([y[part].mean() for part in parts], y[-1]),
        averaged=(x, y),
    )


def band(traces: Sequence[Trace]) -> Band | None:
    """The mean of the runs at each x that all of them have passed, and their range; None: nothing in common."""
    if not traces:
        return None
    start, end = max(one.x[0] for one in traces), min(one.x[-1] for one in traces)
    if start > end:
        return None
    x = np.unique(np.concatenate([one.x for one in traces] + [np.array([start, end])]))
    x = x[(x >= start) & (x <= end)]
    if len(x) > MOST_POINTS:
        x = np.linspace(start, end, MOST_POINTS)
    values = np.stack([np.interp(x, one.x, one.y) for one in traces])  # (runs, points)
    low, high = values.min(axis=0), values.max(axis=0)
    start = max(one.points[0][0] for one in traces)  # that of an average is a little later
    for one in traces:
        _widen(low, high, x, one, (start, end))
    return Band(x, values.mean(axis=0), low, high, len(traces))


def _widen(low: Array, high: Array, x: Array, one: Trace, between: tuple[float, float]) -> None:
    """Take every point of a run between two x into the range at the x that is nearest to it."""
    at, values = one.points
    inside = (at >= between[0]) & (at <= between[1])
    nearest = np.searchsorted((x[1:] + x[:-1]) / 2, at[inside])
    np.minimum.at(low, nearest, values[inside])
    np.maximum.at(high, nearest, values[inside])


def first_hit(run: Mapping[str, Curve], target: Target) -> tuple[float, bool] | None:
    """Seconds until a run met a target and True, or its duration and False if it did not. None without a curve."""
    curve = run.get(target.metric)
    if curve is None or not len(curve.values):
        return None
    with np.errstate(invalid="ignore"):
        met = curve.values <= target.value if target.metric.endswith("loss") else curve.values >= target.value
    at = np.flatnonzero(met)
    return float(curve.wall_seconds[at[0] if len(at) else -1]), bool(len(at))
