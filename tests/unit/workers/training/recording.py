"""Runs of the engine with their reported points, for the tests of the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from service.specs.summary import Summary
from service.specs.training import TrainSpec
from workers.training.loop import train
from workers.training.run import Run
from workers.training.stopping import Stop

Build = Callable[..., TrainSpec]
Points = list[tuple[int, dict[str, float]]]

EVERY_RUN = {
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "best_test_accuracy",
    "lr",
    "grad_norm",
    "update_norm",
    "samples_per_second",
    "weight_correlation",
}
"""Metrics that the engine reports for every run; the other diagnostics are reported on request."""


def run(spec: TrainSpec, stop_after: float = math.inf) -> tuple[Summary, Points]:
    """Train; return the summary and the reported points. The n-th check for a stop cancels, n = `stop_after`."""
    points: Points = []
    checks = 0

    def should_stop() -> Stop | None:
        nonlocal checks
        checks += 1
        return Stop.CANCEL if checks >= stop_after else None

    def report(step: int, metrics: Mapping[str, float]) -> None:
        points.append((step, dict(metrics)))

    return train(spec, report, should_stop, data_dir=Path("nowhere")), points


def curve(points: Points, name: str) -> dict[int, float]:
    """Step -> value of a metric."""
    return {step: metrics[name] for step, metrics in points if name in metrics}


def weights(spec: TrainSpec) -> list[Tensor]:
    """Train; return the final parameters."""
    run = Run(spec, lambda step, metrics: None, Path("nowhere"))
    run.execute(lambda: None)
    return [p.detach() for p in run.model.parameters()]
