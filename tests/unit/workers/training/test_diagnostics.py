"""Diagnostics of a run: their metrics and steps, their time, and that they do not change the training."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import ko
from service.metrics.write import MAX_NAME
from service.specs.catalog.models import MODELS
from service.specs.training import DIAGNOSTICS
from tests.unit.workers.training.recording import EVERY_RUN, Build, curve, run, weights
from tests.unit.workers.training.small import ko as ko_choice
from workers.training import datasets, models

LAYERS = ("1.weight", "3.weight")


def test_reports_each_diagnostic_at_its_steps(spec: Build) -> None:
    summary, points = run(spec(diagnostics_every_steps=5, log_every_steps=7, eval_every_steps=13, budget={"epochs": 2}))
    averages = set(DIAGNOSTICS) - {"gamma_lambda_max", "collision_share"}
    layered = {f"{name}/{layer}" for name in averages for layer in LAYERS}
    assert {name for _, metrics in points for name in metrics} == (
        EVERY_RUN | averages | layered | {"diagnostics_seconds"}
    )
    for name in (averages | layered) - {"weight_correlation"}:
        assert list(curve(points, name)) == [5, 10, 15, 20, 25], name
    assert list(curve(points, "weight_correlation")) == [5, 10, 13, 15, 20, 25, 26]
    for name in averages - {"weight_correlation"}:
        for step, value in curve(points, name).items():
            layers = [curve(points, f"{name}/{layer}")[step] for layer in LAYERS]
            assert value == pytest.approx(sum(layers) / 2)
    assert not [name for name in summary.metrics if "/" in name]  # a summary has the averages
    assert summary.metrics["lambda_max"] == curve(points, "lambda_max")[25]


def test_each_step_has_one_value_per_metric(spec: Build) -> None:
    """A validation measures the weight correlation after the step, a diagnosis before it."""
    _, points = run(spec(diagnostics_every_steps=1, eval_every_steps=4, budget={"steps": 10}))
    reported = [(step, name) for step, metrics in points for name in metrics]
    assert len(reported) == len(set(reported))
    undiagnosed = run(spec(eval_every_steps=4, budget={"steps": 10}))[1]
    for step, value in curve(undiagnosed, "weight_correlation").items():
        assert curve(points, "weight_correlation")[step] == value


@pytest.mark.parametrize(
    ("optimizer", "additional"),
    [
        ("sgd", set()),
        ("muon", set()),
        (ko_choice(), {"gamma_lambda_max"}),
        (ko_choice(base="muon", lr=0.02, bounded=True), {"gamma_lambda_max"}),
        (ko_choice(collision="hard"), {"collision_share"}),
        (ko_choice(collision="none"), set()),
    ],
)
def test_optimizer_determines_diagnostics(spec: Build, optimizer: Any, additional: set[str]) -> None:
    _, points = run(spec(optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 2}))
    common = set(DIAGNOSTICS) - {"gamma_lambda_max", "collision_share"}
    reported = {name for _, metrics in points for name in metrics if name in DIAGNOSTICS}
    assert reported == common | additional
    for name in additional:
        assert list(curve(points, f"{name}/1.weight")) == [1, 2]


@pytest.mark.parametrize(
    ("optimizer", "fields"),
    [
        ("adam", {"gradient_clip": 0.05}),
        (ko_choice(collision="hard"), {}),
        (ko_choice(group_size=8, fade="cosine"), {"precision": "bf16"}),
    ],
)
def test_diagnostics_do_not_change_weights(spec: Build, optimizer: Any, fields: dict[str, Any]) -> None:
    diagnosed = spec(optimizer=optimizer, diagnostics_every_steps=1, **fields)
    assert all(map(torch.equal, weights(diagnosed), weights(spec(optimizer=optimizer, **fields))))


def test_diagnostics_use_clipped_gradients(spec: Build) -> None:
    """The energies of all rows add up to the square of the clipped norm."""
    sgd = {"name": "sgd", "params": {"lr": 1e-3}}
    _, points = run(spec(optimizer=sgd, gradient_clip=0.01, diagnostics_every_steps=1, budget={"steps": 1}))
    rows = {"1.weight": 32, "3.weight": 10}
    square = sum(n * curve(points, f"velocity_energy/{layer}")[1] for layer, n in rows.items())
    assert 0.7 * 0.01**2 < square < 0.01**2  # biases have the rest; the unclipped square is about 100 times larger


def test_gamma_lambda_max_follows_fading(spec: Build) -> None:
    optimizer = ko_choice(gamma=0.2, fade="linear")
    _, points = run(spec(optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 4}))
    eigenvalues, products = curve(points, "lambda_max/1.weight"), curve(points, "gamma_lambda_max/1.weight")
    gammas = [products[step] / eigenvalues[step] for step in (1, 2, 3, 4)]
    assert gammas == pytest.approx([0.2, 0.15, 0.1, 0.05])


def test_collision_share_varies_between_steps(spec: Build) -> None:
    """At rate 1 with close weights, the probability of a collision depends on the relative speed alone."""
    model = {"name": "mlp", "params": {"hidden": [256], "init_scale": 0.01}}
    optimizer = ko_choice(collision="hard", rate=1.0)
    _, points = run(spec(model=model, optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 3}))
    shares = curve(points, "collision_share/1.weight")
    assert list(shares) == [1, 2, 3]
    assert all(0 < share < 1 for share in shares.values())
    assert len(set(shares.values())) > 1


def test_time_is_reported_and_excluded_from_training_time(spec: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def diagnose_slowly(*args: Any) -> ko.Diagnosis:
        delays.append(0.05)
        deadline = time.perf_counter() + 0.05
        while time.perf_counter() < deadline:
            pass
        return ko.diagnose(*args)

    delays: list[float] = []
    monkeypatch.setattr("workers.training.run.diagnose", diagnose_slowly)
    summary, points = run(spec(diagnostics_every_steps=1, budget={"steps": 13}))
    assert sum(delays) == pytest.approx(0.65)
    seconds = list(curve(points, "diagnostics_seconds").values())
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 0.65
    assert summary.train_seconds < seconds[-1] < summary.total_seconds


def test_names_fit_into_column_of_metrics() -> None:
    for choice in MODELS.values():
        inputs = datasets.Inputs((20,), 7, 50) if choice.reads == "text" else datasets.Inputs((3, 32, 32), 10)
        layers = dict(models.build(choice(), inputs, seed=0).named_parameters())
        assert max(map(len, layers)) + 1 + max(map(len, DIAGNOSTICS)) < MAX_NAME
