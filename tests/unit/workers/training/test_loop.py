"""The training loop: accuracy, determinism, reported metrics, endings and refused specs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from service.specs.states import Reason
from tests.unit.workers.training.recording import EVERY_RUN, Build, curve, run, weights
from workers.training import datasets
from workers.training.loop import train
from workers.training.run import Run


class TestGolden:
    """The reference table of docs/ko.md: means of the test accuracy over five seeds."""

    @pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.9624), (0.1, 0.9205)])
    def test_adam_equals_reference(self, spec: Build, scale: float, expected: float) -> None:
        model = {"name": "mlp", "params": {"init_scale": scale}}
        accuracies = [
            run(spec(model=model, budget={"epochs": 30}, seed=seed))[0].metrics["test_accuracy"] for seed in range(5)
        ]
        assert sum(accuracies) / 5 == pytest.approx(expected, abs=0.004)


class TestDeterminism:
    @pytest.mark.parametrize("optimizer", ["adam", {"name": "ko", "params": {"collision": "hard"}}])
    def test_equal_seeds_give_bit_identical_weights(self, spec: Build, optimizer: Any) -> None:
        first, second = weights(spec(optimizer=optimizer, seed=3)), weights(spec(optimizer=optimizer, seed=3))
        assert all(map(torch.equal, first, second))

    def test_different_seeds_give_different_weights(self, spec: Build) -> None:
        assert not torch.equal(weights(spec(seed=3))[0], weights(spec(seed=4))[0])

    def test_evaluation_and_logging_do_not_change_weights(self, spec: Build) -> None:
        often = spec(eval_every_steps=1, log_every_steps=1)
        assert all(map(torch.equal, weights(often), weights(spec(evaluate_test=False))))

    def test_equals_plain_training_loop(self, spec: Build) -> None:
        """The engine gives the weights of a hand-written loop, bit for bit."""
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
    def test_reports_each_metric_at_its_steps(self, spec: Build) -> None:
        summary, points = run(spec(budget={"epochs": 2}, log_every_steps=5))
        assert summary.reason is Reason.COMPLETED
        assert (summary.steps, summary.epochs) == (26, 2.0)
        assert {name for _, metrics in points for name in metrics} == EVERY_RUN
        for name in ("train_loss", "train_accuracy", "lr", "grad_norm", "update_norm"):
            assert list(curve(points, name)) == [5, 10, 15, 20, 25], name
        for name in ("val_loss", "val_accuracy", "weight_correlation", "samples_per_second"):
            assert list(curve(points, name)) == list(range(2, 27, 2)), name
        for name in ("test_loss", "test_accuracy", "best_test_accuracy"):
            assert list(curve(points, name)) == [26], name
        last = {name: list(curve(points, name).values())[-1] for name in EVERY_RUN}
        assert summary.metrics == last | {"samples_per_second": 2 * 800 / summary.train_seconds}
        assert 0 < summary.train_seconds < summary.total_seconds
        assert summary.parameters == 64 * 32 + 32 + 32 * 10 + 10

    def test_speed_is_mean_of_run_and_its_curve_is_since_last_validation(
        self, spec: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The tenth step takes ten times as long as the others."""
        seconds = 0.0

        def step(self: Run, batch: Any, plain: Callable[[Run, Any], None] = Run._step) -> None:
            nonlocal seconds
            seconds += 10.0 if self.step == 9 else 1.0
            plain(self, batch)

        monkeypatch.setattr(time, "perf_counter", lambda: seconds)
        monkeypatch.setattr(Run, "_step", step)
        summary, points = run(spec(budget={"steps": 10}, eval_every_steps=9))
        assert curve(points, "samples_per_second") == {9: 64.0, 10: 6.4}
        assert summary.metrics["samples_per_second"] == 10 * 64 / 19

    def test_speed_of_run_without_validation(self, spec: Build) -> None:
        summary, _ = run(spec(eval_every_steps=13), stop_after=3)
        assert summary.metrics["samples_per_second"] == 3 * 64 / summary.train_seconds

    def test_validates_at_interval_and_at_end(self, spec: Build) -> None:
        _, points = run(spec(budget={"steps": 20}, eval_every_steps=8))
        assert list(curve(points, "val_loss")) == [8, 16, 20]

    def test_accuracy_is_exact_share_of_records(self, spec: Build) -> None:
        _, points = run(spec())
        assert (curve(points, "val_accuracy")[13] * 200).is_integer()

    def test_update_norm_of_plain_sgd_is_lr_times_gradient_norm(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 0.5, "momentum": 0.0}}
        _, points = run(spec(optimizer=sgd, budget={"steps": 3}, log_every_steps=1))
        for step, norm in curve(points, "grad_norm").items():
            assert curve(points, "update_norm")[step] == pytest.approx(0.5 * norm, rel=1e-3)

    def test_gradient_clip_limits_update(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 1.0, "momentum": 0.0}}
        _, points = run(spec(optimizer=sgd, gradient_clip=0.01, budget={"steps": 2}, log_every_steps=1))
        assert curve(points, "grad_norm")[1] > 0.1  # reported before clipping
        assert curve(points, "update_norm")[1] == pytest.approx(0.01, rel=1e-2)

    def test_lr_follows_schedule(self, spec: Build) -> None:
        schedule = {"name": "linear", "params": {"warmup_steps": 2}}
        _, points = run(spec(schedule=schedule, budget={"steps": 6}, log_every_steps=1))
        assert list(curve(points, "lr").values()) == pytest.approx([0.0005, 0.001, 0.001, 0.00075, 0.0005, 0.00025])

    def test_best_test_accuracy_is_that_of_best_validation(self, spec: Build) -> None:
        """A run that ends at the best step has the weights of that step."""
        sgd = {"name": "sgd", "params": {"lr": 2.0}}
        summary, points = run(spec(optimizer=sgd, budget={"steps": 12}, eval_every_steps=1, seed=1))
        values = curve(points, "val_accuracy")
        assert summary.best_step == max(values, key=lambda step: values[step])
        assert summary.best_step < 12, "the best step of this example must come before the last"
        shorter, _ = run(spec(optimizer=sgd, budget={"steps": summary.best_step}, eval_every_steps=1, seed=1))
        assert summary.metrics["best_test_accuracy"] == shorter.metrics["test_accuracy"]

    def test_reports_environment_before_first_step(self, spec: Build) -> None:
        reports: list[Any] = []
        train(
            spec(
                log_every_steps=1,
                budget={"steps": 1},
                seed=7,
                schedule={"name": "linear", "params": {"warmup_steps": 8}},
            ),
            lambda step, metrics: reports.append(step),
            lambda: None,
            data_dir=Path("nowhere"),
            report_start=lambda start: reports.extend([start.environment, start.total_steps, start.notes]),
        )
        assert reports[0]["seed"] == 7
        assert reports[0]["torch"] == torch.__version__
        assert len(reports[0]["data_hash"]) == 64
        assert reports[1] == 1  # the steps of the budget
        (note,) = reports[2]
        assert note.startswith(
            "the warm-up takes 8 steps, but the run ends after 1, when the learning rate has risen to 12 %"
        )
        assert set(reports[3:]) == {1}


class TestEndings:
    def test_stops_on_divergence(self, spec: Build) -> None:
        sgd = {"name": "sgd", "params": {"lr": 100}}
        model = {"name": "mlp", "params": {"hidden": [128] * 4, "init_scale": 2}}
        summary, points = run(spec(optimizer=sgd, model=model, budget={"epochs": 20}, log_every_steps=1))
        assert summary.reason is Reason.DIVERGED
        assert summary.message is not None
        assert f"at step {summary.steps + 1}" in summary.message or f"after step {summary.steps}" in summary.message
        assert summary.steps < 260
        assert "test_accuracy" not in summary.metrics
        assert max(step for step, _ in points) == summary.steps

    def test_stops_on_cancel(self, spec: Build) -> None:
        summary, points = run(spec(budget={"epochs": 50}), stop_after=7)
        assert (summary.reason, summary.steps) == (Reason.CANCELLED, 7)
        assert not curve(points, "test_accuracy")

    def test_records_first_step_at_target(self, spec: Build) -> None:
        target = {"metric": "val_accuracy", "value": 0.5}
        summary, points = run(spec(budget={"epochs": 4}, target=target))
        assert summary.reason is Reason.COMPLETED
        assert summary.steps == 52
        assert summary.target is not None
        assert summary.target.step == next(s for s, value in curve(points, "val_accuracy").items() if value >= 0.5)
        assert 0 < summary.target.wall_seconds <= summary.train_seconds

    def test_stops_at_target(self, spec: Build) -> None:
        target = {"metric": "val_loss", "value": 2.0}
        summary, points = run(spec(budget={"epochs": 20}, target=target, stop_at_target=True))
        assert summary.reason is Reason.TARGET_REACHED
        assert summary.target is not None
        assert summary.steps == summary.target.step < 260
        assert curve(points, "val_loss")[summary.steps] <= 2.0
        assert list(curve(points, "test_accuracy")) == [summary.steps]

    def test_missed_target_is_none(self, spec: Build) -> None:
        assert run(spec(target={"metric": "val_accuracy", "value": 1.0}))[0].target is None


class TestRefusals:
    def test_requires_gpu_for_cuda_and_fp16(self, spec: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match="this worker has no GPU"):
            run(spec(device="cuda"))
        with pytest.raises(ValueError, match="fp16"):
            run(spec(device="auto", precision="fp16"))

    def test_rejects_batch_larger_than_training_set(self, spec: Build) -> None:
        with pytest.raises(ValueError, match="batch_size 801 is larger than the 800 training records"):
            run(spec(batch_size=801))

    def test_missing_data_set_raises_file_not_found(self, spec: Build, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="kotrain data fetch mnist"):
            train(spec(dataset="mnist"), lambda step, metrics: None, lambda: None, data_dir=tmp_path)


def test_bf16_learns(spec: Build) -> None:
    summary, points = run(spec(precision="bf16", eval_every_steps=13, budget={"epochs": 5}))
    assert curve(points, "val_loss")[65] < curve(points, "val_loss")[13]
    assert summary.metrics["train_loss"] != run(spec(budget={"epochs": 5}))[0].metrics["train_loss"]


def test_restores_deterministic_mode(spec: Build) -> None:
    run(spec(budget={"steps": 1}))
    assert not torch.are_deterministic_algorithms_enabled()
