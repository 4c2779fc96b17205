"""Whatever a run does, and wherever its listener is cut off: that one has the stored curves in the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.metrics.read import Curve
from service.streams.cursor import JobCursor
from service.streams.curve_pages import beyond, parts

NAMES = (1, 2, 3)
Points = dict[int, dict[int, float]]
"""Metric -> step -> value."""


def curves(points: Points) -> dict[int, Curve]:
    return {
        name: Curve(np.array(sorted(of)), np.array([of[step] for step in sorted(of)]), np.zeros(len(of)))
        for name, of in points.items()
        if of
    }


@dataclass
class Run:
    """What is stored of a job: `metrics.append`, `metrics.trim` and `attempts.begin`, in memory.

    Each value is another one, so that a point that was measured anew is told from the void one.
    """

    stored: Points = field(default_factory=lambda: {name: {} for name in NAMES})
    rewinds: list[int] = field(default_factory=list)
    step: int = 0
    _measured: float = 0.0

    def measure(self, ahead: int, names: set[int]) -> None:
        """Points of the step `ahead` of the last one, 0 being the same: of metrics that it does not have yet."""
        self.step += ahead
        for name in names:
            if self.step not in self.stored[name]:
                self._measured += 1
                self.stored[name][self.step] = self._measured

    def go_on_after(self, step: int, told: set[int]) -> None:
        """A new attempt from a checkpoint; `told`: the metrics that had been measured at its step."""
        step = min(step, self.step)
        for name, of in self.stored.items():
            self.stored[name] = {s: v for s, v in of.items() if s < step or (s == step and step and name in told)}
        self.rewinds.append(step)
        self.step = step


@dataclass
class Page:
    """A client that keeps the points it receives, and the id of the last event."""

    cursor: JobCursor = field(default_factory=JobCursor)
    points: Points = field(default_factory=lambda: {name: {} for name in NAMES})

    def hear(self, run: Run, most: int, leaves_after: int | None) -> None:
        """Receive a delta; the connection may break after a number of its events."""
        for told in islice(self._told(run, most), leaves_after):
            self.cursor = told

    def _told(self, run: Run, most: int) -> Iterator[JobCursor]:
        cursor = self.cursor
        for seq, step in enumerate(run.rewinds, 1):
            if seq > cursor.seq:
                self.points = {name: {s: v for s, v in of.items() if s < step} for name, of in self.points.items()}
                cursor = JobCursor(seq, cursor.step, cursor.names).rewound(step)
                yield cursor
        for part, after in parts(beyond(curves(run.stored), cursor), cursor, most):
            for name, curve in part.items():
                for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
                    assert step not in self.points[name], "told twice"
                    self.points[name][step] = value
            yield after


names = st.sets(st.sampled_from(NAMES))
actions = st.one_of(
    st.tuples(st.just("measure"), st.integers(0, 3), names),
    st.tuples(st.just("go on"), st.integers(0, 12), names),
    st.tuples(st.just("hear"), st.integers(1, 4), st.none() | st.integers(0, 3)),
)


@given(st.lists(actions, max_size=40))
def test_every_client_ends_with_the_stored_curves(taken):
    run, page = Run(), Page()
    for kind, number, rest in taken:
        if kind == "measure":
            run.measure(number, rest)
        elif kind == "go on":
            run.go_on_after(number, rest)
        else:
            page.hear(run, number, rest)
    page.hear(run, 3, None)
    assert page.points == run.stored


def test_metrics_of_a_step_that_arrive_in_two_flushes():
    run, page = Run(), Page()
    run.measure(10, {1})
    page.hear(run, 100, None)
    assert page.cursor == JobCursor(0, 10, frozenset({1}))
    run.measure(0, {2, 3})
    page.hear(run, 100, None)
    assert page.cursor == JobCursor(0, 10, frozenset({1, 2, 3}))
    assert page.points == run.stored


@pytest.mark.parametrize("most", [1, 2, 7, 100])
def test_pages_have_about_the_requested_size_and_end_at_a_step(most):
    points = {name: dict.fromkeys(range(0, 50, name), 1.0) for name in NAMES}
    found = list(parts(curves(points), JobCursor(), most))
    for part, _ in found[:-1]:
        assert 0 < sum(len(curve.steps) for curve in part.values()) < most + len(NAMES)
    ends = [cursor.step for _, cursor in found]
    assert ends == sorted(set(ends))
    assert found[-1][1] == JobCursor(0, 49, frozenset({1}))


def test_no_points_give_no_page():
    assert list(parts({}, JobCursor(), 10)) == []
    assert beyond(curves({1: {5: 1.0}}), JobCursor(0, 5, frozenset({1}))) == {}
