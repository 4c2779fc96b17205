from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec import METRICS, Reason, Summary, TrainSpec
from workers.training import datasets
from workers.training.loop import Run, train

Build = Callable[..., TrainSpec]
Points = list[tuple[int, dict[str, float]]]


def run(spec: TrainSpec, stop_after: float = math.inf) -> tuple[Summary, Points]:
    points: Points = []
    polls = 0

    def should_stop() -> bool:
        nonlocal polls
        polls += 1
        return polls >= stop_after

    def report(step: int, metrics: Mapping[str, float]) -> None:
        points.append((step, dict(metrics)))

    return train(spec, report, should_stop, data_dir=Path("nowhere")), points


def curve(points: Points, name: str) -> dict[int, float]:
    return {step: metrics[name] for step, metrics in points if name in metrics}


def weights(spec: TrainSpec) -> list[Tensor]:
    trained = Run(spec, lambda step, metrics: None, Path("nowhere"))
    trained.execute(lambda: False)
    return [p.detach() for p in trained.model.parameters()]


class TestGolden:
    """The reference table of docs/ko.md, whose test accuracies are means over five seeds."""

    @pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.9624), (0.1, 0.9205)])
    def test_adam(self, spec: Build, scale: float, expected: float) -> None:
        model = {"name": "mlp", "params": {"init_scale": scale}}
        accuracies = [
            run(spec(model=model, budget={"epochs": 30}, seed=seed))[0].metrics["test_accuracy"] for seed in range(5)
        ]
        assert sum(accuracies) / 5 == pytest.approx(expected, abs=0.004)


class TestDeterminism:
    @pytest.mark.parametrize("optimizer", ["adam", {"name": "ko", "params": {"collision": "hard"}}])
    def test_equal_bits(self, spec: Build, optimizer: Any) -> None:
        first, second = weights(spec(optimizer=optimizer, seed=3)), weights(spec(optimizer=optimizer, seed=3))
        assert all(map(torch.equal, first, second))

    def test_another_seed_differs(self, spec: Build) -> None:
        assert not torch.equal(weights(spec(seed=3))[0], weights(spec(seed=4))[0])

    def test_evaluating_and_logging_change_nothing(self, spec: Build) -> None:
        often = spec(eval_every_steps=1, log_every_steps=1)
        assert all(map(torch.equal, weights(often), weights(spec(evaluate_test=False))))

    def test_the_bare_recipe(self, spec: Build) -> None:
        """The engine does what a user's own loop would do, bit for bit."""
        task, _ = datasets.load(
            datasets.Request(spec().dataset, Path("nowhere"), 64, 5, torch.device("cpu"), with_test=False)
        )
        torch.manual_seed(5)
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for inputs, labels in task.train_batches():
            adam.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            adam.step()
        assert all(map(torch.equal, weights(spec(seed=5)), model.parameters()))


class TestReports:
    def test_what_and_when(self, spec: Build) -> None:
        summary, points = run(spec(budget={"epochs": 2}, log_every_steps=5))
        assert summary.reason is Reason.COMPLETED
        assert (summary.steps, summary.epochs) == (26, 2.0)
        assert {name for _, metrics in points for name in metrics} == set(METRICS)
        for name in ("train_loss", "train_accuracy", "lr", "grad_norm", "update_norm"):
            assert list(curve(points, name)) == [5, 10, 15, 20, 25], name
        for name in ("val_loss", "val_accuracy", "weight_correlation", "samples_per_second"):
            assert list(curve(points, name)) == [13, 26], name
        for name in ("test_loss", "test_accuracy", "best_test_accuracy"):
            assert list(curve(points, name)) == [26], name
        assert summary.metrics == {name: list(curve(points, name).values())[-1] for name in METRICS}
        assert 0 < summary.train_seconds < summary.total_seconds
        assert summary.parameters == 64 * 32 + 32 + 32 * 10 + 10

    def test_validates_every_so_many_steps_and_at_the_end(self, spec: Build) -> None:
        _, points = run(spec(budget={"steps": 20}, eval_every_steps=8))
        assert list(curve(points, "val_loss")) == [8, 16, 20]

    def test_accuracies_are_exact_shares(self, spec: Build) -> None:
        _, points = run(spec())
        assert (curve(points, "val_accuracy")[13] * 200).is_integer()

    def test_update_norm_of_plain_sgd_is_lr_times_gradient(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 0.5, "momentum": 0.0}}
        _, points = run(spec(optimizer=sgd, budget={"steps": 3}, log_every_steps=1))
        for step, norm in curve(points, "grad_norm").items():
            assert curve(points, "update_norm")[step] == pytest.approx(0.5 * norm, rel=1e-3)

    def test_gradient_clip(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 1.0, "momentum": 0.0}}
        _, points = run(spec(optimizer=sgd, gradient_clip=0.01, budget={"steps": 2}, log_every_steps=1))
        assert curve(points, "grad_norm")[1] > 0.1  # as it was before
        assert curve(points, "update_norm")[1] == pytest.approx(0.01, rel=1e-2)

    def test_lr_follows_the_schedule(self, spec: Build) -> None:
        schedule = {"name": "linear", "params": {"warmup_steps": 2}}
        _, points = run(spec(schedule=schedule, budget={"steps": 6}, log_every_steps=1))
        assert list(curve(points, "lr").values()) == pytest.approx([0.0005, 0.001, 0.001, 0.00075, 0.0005, 0.00025])

    def test_best_weights_are_those_of_the_best_validation(self, spec: Build) -> None:
        """The best step's weights are those of a run that ends there."""
        sgd = {"name": "sgd", "params": {"lr": 2.0}}
        summary, points = run(spec(optimizer=sgd, budget={"steps": 12}, eval_every_steps=1, seed=1))
        values = curve(points, "val_accuracy")
        assert summary.best_step == max(values, key=lambda step: values[step])
        assert summary.best_step < 12, "the example must have its best step before the last"
        shorter, _ = run(spec(optimizer=sgd, budget={"steps": summary.best_step}, eval_every_steps=1, seed=1))
        assert summary.metrics["best_test_accuracy"] == shorter.metrics["test_accuracy"]

    def test_environment_comes_before_the_first_step(self, spec: Build) -> None:
        seen: list[Any] = []
        train(
            spec(log_every_steps=1, budget={"steps": 1}, seed=7),
            lambda step, metrics: seen.append(step),
            lambda: False,
            data_dir=Path("nowhere"),
            report_start=lambda environment, total_steps: seen.extend([environment, total_steps]),
        )
        assert seen[0]["seed"] == 7
        assert seen[0]["torch"] == torch.__version__
        assert len(seen[0]["data_hash"]) == 64
        assert seen[1] == 1  # the steps of the budget
        assert set(seen[2:]) == {1}


class TestEndings:
    def test_divergence(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 100}}
        model = {"name": "mlp", "params": {"hidden": [128] * 4, "init_scale": 2}}
        summary, points = run(spec(optimizer=sgd, model=model, budget={"epochs": 20}, log_every_steps=1))
        assert summary.reason is Reason.DIVERGED
        assert summary.message is not None
        assert f"at step {summary.steps + 1}" in summary.message or f"after step {summary.steps}" in summary.message
        assert summary.steps < 260
        assert "test_accuracy" not in summary.metrics
        assert max(step for step, _ in points) == summary.steps

    def test_cancelled(self, spec: Build) -> None:
        summary, points = run(spec(budget={"epochs": 50}), stop_after=7)
        assert (summary.reason, summary.steps) == (Reason.CANCELLED, 7)
        assert not curve(points, "test_accuracy")

    def test_target_is_recorded(self, spec: Build) -> None:
        target = {"metric": "val_accuracy", "value": 0.5}
        summary, points = run(spec(budget={"epochs": 4}, target=target))
        assert summary.reason is Reason.COMPLETED
        assert summary.steps == 52
        assert summary.target is not None
        assert summary.target.step == next(s for s, value in curve(points, "val_accuracy").items() if value >= 0.5)
        assert 0 < summary.target.wall_seconds <= summary.train_seconds

    def test_target_ends_the_run(self, spec: Build) -> None:
        target = {"metric": "val_loss", "value": 2.0}
        summary, points = run(spec(budget={"epochs": 20}, target=target, stop_at_target=True))
        assert summary.reason is Reason.TARGET_REACHED
        assert summary.target is not None
        assert summary.steps == summary.target.step < 260
        assert curve(points, "val_loss")[summary.steps] <= 2.0
        assert list(curve(points, "test_accuracy")) == [summary.steps]

    def test_target_not_met(self, spec: Build) -> None:
        assert run(spec(target={"metric": "val_accuracy", "value": 1.0}))[0].target is None


class TestRefusals:
    def test_no_gpu(self, spec: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match="sees no GPU"):
            run(spec(device="cuda"))
        with pytest.raises(ValueError, match="fp16"):
            run(spec(device="auto", precision="fp16"))

    def test_batch_larger_than_data(self, spec: Build) -> None:
        with pytest.raises(ValueError, match="batch_size 801 is larger than the 800 training records"):
            run(spec(batch_size=801))

    def test_absent_data(self, spec: Build, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="kotrain data fetch mnist"):
            train(spec(dataset="mnist"), lambda step, metrics: None, lambda: False, data_dir=tmp_path)


def test_bf16_trains(spec: Build) -> None:
    summary, points = run(spec(precision="bf16", budget={"epochs": 5}))
    assert curve(points, "val_loss")[65] < curve(points, "val_loss")[13]
    assert summary.metrics["train_loss"] != run(spec(budget={"epochs": 5}))[0].metrics["train_loss"]


def test_deterministic_mode_is_given_back(spec: Build) -> None:
    run(spec(budget={"steps": 1}))
    assert not torch.are_deterministic_algorithms_enabled()
