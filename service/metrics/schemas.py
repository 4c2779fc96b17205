"""Response bodies of metrics."""

from __future__ import annotations

from service.specs.bodies import Output


class CurveView(Output):
    """Points of a metric by step; values that are not finite are null."""

    steps: list[int]
    values: list[float | None]
    wall_seconds: list[float]


class Metrics(Output):
    """The curves of one job."""

    metrics: dict[str, CurveView]
