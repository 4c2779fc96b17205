"""A budget of seconds of training: its end, its learning rates, and what does not count towards it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from service.specs.states import Reason
from tests.unit.workers.training.recording import Build, Points, curve, run, weights
from workers.training.loop import train
from workers.training.run import Run


def test_ends_with_step_that_reaches_it(spec: Build) -> None:
    used: list[float] = []

    def record_seconds() -> None:
        if training.step > len(used):  # not after a batch of an evaluation
            used.append(training.progress.used)

    training = Run(spec(budget={"seconds": 0.3}), lambda step, metrics: None, Path("nowhere"))
    summary = training.execute(record_seconds)
    assert summary.reason is Reason.COMPLETED
    assert summary.steps == len(used)
    assert used == sorted(set(used))
    assert used[-2] < 0.3 <= used[-1] <= summary.train_seconds


def test_validates_and_tests_at_its_end(spec: Build) -> None:
    summary, points = run(spec(budget={"seconds": 0.1}, eval_every_steps=10**9))
    assert list(curve(points, "val_loss")) == list(curve(points, "test_loss")) == [summary.steps]


def test_has_no_total_steps(spec: Build) -> None:
    total_steps: list[Any] = []
    train(
        spec(budget={"seconds": 0.01}),
        lambda step, metrics: None,
        lambda: None,
        data_dir=Path("nowhere"),
        report_start=lambda start: total_steps.append(start.total_steps),
    )
    assert total_steps == [None]


@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_determines_learning_rate(spec: Build, warmup_steps: int) -> None:
    """A step's rate depends on the seconds used before it, counted from the end of the warm-up."""
    used = [0.0]
    points: Points = []

    def record_seconds() -> None:
        if training.step == len(used):  # not after a batch of an evaluation
            used.append(training.progress.used)

    schedule = {"name": "linear", "params": {"warmup_steps": warmup_steps}}
    training = Run(
        spec(schedule=schedule, budget={"seconds": 0.3}, log_every_steps=1),
        lambda step, metrics: points.append((step, dict(metrics))),
        Path("nowhere"),
    )
    training.execute(record_seconds)
    rates = list(curve(points, "lr").values())
    start = used[warmup_steps]
    decay = [1e-3 * (0.3 - seconds) / (0.3 - start) for seconds in used[warmup_steps:-1]]
    assert len(decay) > 3
    assert rates == pytest.approx([1e-3 * k / 3 for k in range(1, warmup_steps + 1)] + decay)


def test_excludes_evaluation(spec: Build) -> None:
    """Each validation takes as long as the budget: if they counted, the second step would be the last."""

    def report_slowly(step: int, metrics: Mapping[str, float]) -> None:
        deadline = time.perf_counter() + 0.2
        while "val_loss" in metrics and time.perf_counter() < deadline:
            pass

    training = Run(spec(budget={"seconds": 0.2}, eval_every_steps=1), report_slowly, Path("nowhere"))
    summary = training.execute(lambda: training.step == 4)
    assert (summary.reason, summary.steps) == (Reason.CANCELLED, 4)
    assert summary.total_seconds > 3 * 0.2 > summary.train_seconds


def test_last_step_has_one_value_per_metric(spec: Build) -> None:
    """The last step measures the weight correlation once, although both a diagnosis and a validation report it."""
    summary, points = run(spec(budget={"seconds": 0.05}, diagnostics_every_steps=1, eval_every_steps=10**9))
    reported = [(step, name) for step, metrics in points for name in metrics]
    assert len(reported) == len(set(reported))
    assert max(curve(points, "weight_correlation")) == summary.steps


def test_run_can_end_earlier(spec: Build) -> None:
    assert run(spec(budget={"seconds": 60}), stop_after=7)[0].steps == 7
    target = {"metric": "val_accuracy", "value": 0.5}
    summary, _ = run(spec(budget={"seconds": 60}, target=target, stop_at_target=True))
    assert summary.reason is Reason.TARGET_REACHED
    assert summary.train_seconds < 60


def test_equals_budget_of_steps(spec: Build) -> None:
    """An equal number of steps gives equal weights."""
    training = Run(spec(budget={"seconds": 0.05}), lambda step, metrics: None, Path("nowhere"))
    steps = training.execute(lambda: None).steps
    assert all(map(torch.equal, weights(spec(budget={"steps": steps})), training.model.parameters()))
