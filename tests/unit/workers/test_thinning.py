"""Curves of many points are thinned as they are reported: bounded, with their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workers.thinning import KEPT_POINTS, Point, Thinner

DRAW = np.random.default_rng(0)


def thinned(values: np.ndarray) -> list[Point]:
    thinner = Thinner()
    points = [
        kept for step, value in enumerate(values.tolist(), 1) for kept in thinner.add(Point(step, value, step / 2))
    ]
    return [*points, *thinner.flush()]


def test_few_points_are_all_kept() -> None:
    values = DRAW.normal(size=KEPT_POINTS)
    assert [point.value for point in thinned(values)] == values.tolist()


@pytest.mark.parametrize("doublings", [1, 3, 5])
def test_many_points_are_bounded_and_in_order(doublings: int) -> None:
    values = DRAW.normal(size=KEPT_POINTS * 2**doublings)
    points = thinned(values)
    assert len(points) <= KEPT_POINTS * (1 + doublings / 2) + 2
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert all(point.value == values[point.step - 1] and point.wall_seconds == point.step / 2 for point in points)
    assert {max(values), min(values)} <= {point.value for point in points}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_kept(bad: float) -> None:
    values = np.arange(8.0 * KEPT_POINTS)
    values[5 * KEPT_POINTS] = bad
    assert sum(not math.isfinite(point.value) for point in thinned(values)) == 1


def test_last_point_is_kept_on_request() -> None:
    thinner = Thinner()
    for step in range(KEPT_POINTS):
        thinner.add(Point(step, 0.0, 0.0))
    for step, value in enumerate((1.0, 3.0, 2.0), KEPT_POINTS):
        assert thinner.add(Point(step, value, 0.0)) == []
    assert [point.value for point in thinner.flush(with_last=True)] == [1.0, 3.0, 2.0]


def test_flush_empties_the_window() -> None:
    thinner = Thinner()
    for step in range(KEPT_POINTS + 3):
        thinner.add(Point(step, float(step), 0.0))
    assert [point.step for point in thinner.flush()] == [KEPT_POINTS, KEPT_POINTS + 2]
    assert thinner.flush() == []
