"""A client whose connection breaks at any point has the stored curves in the end, whatever a run does meanwhile."""

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
        name: Curve(np.array(sorted(values)), np.array([values[s] for s in sorted(values)]), np.zeros(len(values)))
        for name, values in points.items()
        if values
    }


@dataclass
class Run:
    """The stored curves of a job, in memory: `write.append`, `write.trim` and the start of an attempt.

    All values differ, so that a point that was measured again is distinct from the discarded one.
    """

    stored: Points = field(default_factory=lambda: {name: {} for name in NAMES})
    rewinds: list[int] = field(default_factory=list)
    step: int = 0
    _measured: float = 0.0

    def measure(self, ahead: int, names: set[int]) -> None:
        """Add points at the step `ahead` of the last one (0: the same step), of metrics without a point there."""
        self.step += ahead
        for name in names:
            if self.step not in self.stored[name]:
                self._measured += 1
                self.stored[name][self.step] = self._measured

    def resume(self, step: int, measured: set[int]) -> None:
        """Start a new attempt from a checkpoint; `measured`: the metrics that have a point at its step."""
        step = min(step, self.step)
        for name, values in self.stored.items():
            self.stored[name] = {
                s: value for s, value in values.items() if s < step or (s == step and step and name in measured)
            }
        self.rewinds.append(step)
        self.step = step


@dataclass
class Client:
    """A client that stores the points it receives and the id of the last event."""

    cursor: JobCursor = field(default_factory=JobCursor)
    points: Points = field(default_factory=lambda: {name: {} for name in NAMES})

    def receive(self, run: Run, max_points: int, break_after: int | None) -> None:
        """Receive the events since the cursor, or the first `break_after` of them before the connection breaks."""
        for cursor in islice(self._events(run, max_points), break_after):
            self.cursor = cursor

    def _events(self, run: Run, max_points: int) -> Iterator[JobCursor]:
        cursor = self.cursor
        for seq, step in enumerate(run.rewinds, 1):
            if seq > cursor.seq:
                for name, values in self.points.items():
                    self.points[name] = {s: value for s, value in values.items() if s < step}
                cursor = JobCursor(seq, cursor.step, cursor.names).rewound(step)
                yield cursor
        for part, after in parts(beyond(curves(run.stored), cursor), cursor, max_points):
            for name, curve in part.items():
                for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
                    assert step not in self.points[name], "the point was sent twice"
                    self.points[name][step] = value
            yield after


names = st.sets(st.sampled_from(NAMES))
actions = st.one_of(
    st.tuples(st.just("measure"), st.integers(0, 3), names),
    st.tuples(st.just("resume"), st.integers(0, 12), names),
    st.tuples(st.just("receive"), st.integers(1, 4), st.none() | st.integers(0, 3)),
)


@given(st.lists(actions, max_size=40))
def test_client_ends_with_stored_curves(sequence):
    run, client = Run(), Client()
    for kind, number, argument in sequence:
        if kind == "measure":
            run.measure(number, argument)
        elif kind == "resume":
            run.resume(number, argument)
        else:
            client.receive(run, number, argument)
    client.receive(run, 3, None)
    assert client.points == run.stored


def test_receives_metrics_of_a_step_from_two_flushes():
    run, client = Run(), Client()
    run.measure(10, {1})
    client.receive(run, 100, None)
    assert client.cursor == JobCursor(0, 10, frozenset({1}))
    run.measure(0, {2, 3})
    client.receive(run, 100, None)
    assert client.cursor == JobCursor(0, 10, frozenset({1, 2, 3}))
    assert client.points == run.stored


@pytest.mark.parametrize("max_points", [1, 2, 7, 100])
def test_pages_have_about_requested_size_and_end_at_a_step(max_points):
    points = {name: dict.fromkeys(range(0, 50, name), 1.0) for name in NAMES}
    pages = list(parts(curves(points), JobCursor(), max_points))
    for part, _ in pages[:-1]:
        assert 0 < sum(len(curve.steps) for curve in part.values()) < max_points + len(NAMES)
    ends = [cursor.step for _, cursor in pages]
    assert ends == sorted(set(ends))
    assert pages[-1][1] == JobCursor(0, 49, frozenset({1}))


def test_no_points_give_no_page():
    assert list(parts({}, JobCursor(), 10)) == []
    assert beyond(curves({1: {5: 1.0}}), JobCursor(0, 5, frozenset({1}))) == {}
