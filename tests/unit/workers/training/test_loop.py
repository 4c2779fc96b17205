from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ko
from service.metrics.write import MAX_NAME
from service.specs.catalog.models import MODELS
from service.specs.outcome import Summary
from service.specs.states import Reason
from service.specs.training import DIAGNOSTICS, METRICS, TrainSpec
from workers.training import datasets, models
from workers.training.loop import train
from workers.training.run import Run
from workers.training.stopping import Stop

Build = Callable[..., TrainSpec]
Points = list[tuple[int, dict[str, float]]]

ON_REQUEST = {*DIAGNOSTICS, "diagnostics_seconds"} - {"weight_correlation"}
EVERY_RUN = set(METRICS) - ON_REQUEST


def run(spec: TrainSpec, stop_after: float = math.inf) -> tuple[Summary, Points]:
    points: Points = []
    polls = 0

    def should_stop() -> Stop | None:
        nonlocal polls
        polls += 1
        return Stop.CANCEL if polls >= stop_after else None

    def report(step: int, metrics: Mapping[str, float]) -> None:
        points.append((step, dict(metrics)))

    return train(spec, report, should_stop, data_dir=Path("nowhere")), points


def curve(points: Points, name: str) -> dict[int, float]:
    return {step: metrics[name] for step, metrics in points if name in metrics}


def weights(spec: TrainSpec) -> list[Tensor]:
    trained = Run(spec, lambda step, metrics: None, Path("nowhere"))
    trained.execute(lambda: None)
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
        assert {name for _, metrics in points for name in metrics} == EVERY_RUN
        for name in ("train_loss", "train_accuracy", "lr", "grad_norm", "update_norm"):
            assert list(curve(points, name)) == [5, 10, 15, 20, 25], name
        for name in ("val_loss", "val_accuracy", "weight_correlation", "samples_per_second"):
            assert list(curve(points, name)) == [13, 26], name
        for name in ("test_loss", "test_accuracy", "best_test_accuracy"):
            assert list(curve(points, name)) == [26], name
        last = {name: list(curve(points, name).values())[-1] for name in EVERY_RUN}
        assert summary.metrics == last | {"samples_per_second": 2 * 800 / summary.train_seconds}
        assert 0 < summary.train_seconds < summary.total_seconds
        assert summary.parameters == 64 * 32 + 32 + 32 * 10 + 10

    def test_speed_is_over_the_whole_run_and_its_curve_since_the_last_validation(
        self, spec: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last step takes ten times as long as the others."""
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

    def test_speed_of_a_run_that_ends_before_its_first_validation(self, spec: Build) -> None:
        summary, _ = run(spec(), stop_after=3)
        assert summary.metrics["samples_per_second"] == 3 * 64 / summary.train_seconds

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
            lambda: None,
            data_dir=Path("nowhere"),
            report_start=lambda start: seen.extend([start.environment, start.total_steps]),
        )
        assert seen[0]["seed"] == 7
        assert seen[0]["torch"] == torch.__version__
        assert len(seen[0]["data_hash"]) == 64
        assert seen[1] == 1  # the steps of the budget
        assert set(seen[2:]) == {1}


class TestSeconds:
    """A budget of wall-clock seconds."""

    def test_end_with_the_step_that_reaches_them(self, spec: Build) -> None:
        used: list[float] = []

        def after_a_step() -> None:
            if trained.step > len(used):  # and not after a batch of an evaluation
                used.append(trained.progress.used)

        trained = Run(spec(budget={"seconds": 0.3}), lambda step, metrics: None, Path("nowhere"))
        summary = trained.execute(after_a_step)
        assert summary.reason is Reason.COMPLETED
        assert summary.steps == len(used)
        assert used == sorted(set(used))
        assert used[-2] < 0.3 <= used[-1] <= summary.train_seconds

    def test_are_followed_by_a_validation_and_the_test(self, spec: Build) -> None:
        summary, points = run(spec(budget={"seconds": 0.1}, eval_every_steps=10**9))
        assert list(curve(points, "val_loss")) == list(curve(points, "test_loss")) == [summary.steps]

    def test_are_no_number_of_steps(self, spec: Build) -> None:
        seen: list[Any] = []
        train(
            spec(budget={"seconds": 0.01}),
            lambda step, metrics: None,
            lambda: None,
            data_dir=Path("nowhere"),
            report_start=lambda start: seen.append(start.total_steps),
        )
        assert seen == [None]

    @pytest.mark.parametrize("warmup_steps", [0, 3])
    def test_decide_the_learning_rate(self, spec: Build, warmup_steps: int) -> None:
        """Each step's is that of the seconds used before it, of those that the warm-up left."""
        used = [0.0]
        points: Points = []

        def after_a_step() -> None:
            if trained.step == len(used):  # and not after a batch of an evaluation
                used.append(trained.progress.used)

        schedule = {"name": "linear", "params": {"warmup_steps": warmup_steps}}
        trained = Run(
            spec(schedule=schedule, budget={"seconds": 0.3}, log_every_steps=1),
            lambda step, metrics: points.append((step, dict(metrics))),
            Path("nowhere"),
        )
        trained.execute(after_a_step)
        rates = list(curve(points, "lr").values())
        warm = used[warmup_steps]
        left = [1e-3 * (0.3 - seconds) / (0.3 - warm) for seconds in used[warmup_steps:-1]]
        assert len(left) > 3
        assert rates == pytest.approx([1e-3 * k / 3 for k in range(1, warmup_steps + 1)] + left)

    def test_do_not_run_while_evaluating(self, spec: Build) -> None:
        """Validations that last as long as the budget: had they counted, the second step would have been the last."""

        def slow(step: int, metrics: Mapping[str, float]) -> None:
            until = time.perf_counter() + 0.2
            while "val_loss" in metrics and time.perf_counter() < until:
                pass

        slowly = Run(spec(budget={"seconds": 0.2}, eval_every_steps=1), slow, Path("nowhere"))
        summary = slowly.execute(lambda: slowly.step == 4)
        assert (summary.reason, summary.steps) == (Reason.CANCELLED, 4)
        assert summary.total_seconds > 3 * 0.2 > summary.train_seconds

    def test_leave_one_value_of_a_metric_to_the_last_step(self, spec: Build) -> None:
        """The diagnosis of a step knows whether a validation follows."""
        summary, points = run(spec(budget={"seconds": 0.05}, diagnostics_every_steps=1, eval_every_steps=10**9))
        seen = [(step, name) for step, metrics in points for name in metrics]
        assert len(seen) == len(set(seen))
        assert max(curve(points, "weight_correlation")) == summary.steps

    def test_do_not_outlast_another_end(self, spec: Build) -> None:
        assert run(spec(budget={"seconds": 60}), stop_after=7)[0].steps == 7
        target = {"metric": "val_accuracy", "value": 0.5}
        summary, _ = run(spec(budget={"seconds": 60}, target=target, stop_at_target=True))
        assert summary.reason is Reason.TARGET_REACHED
        assert summary.train_seconds < 60

    def test_change_nothing_in_what_is_learned(self, spec: Build) -> None:
        """As many steps make the same weights, however they were asked for."""
        timed = Run(spec(budget={"seconds": 0.05}), lambda step, metrics: None, Path("nowhere"))
        steps = timed.execute(lambda: None).steps
        assert all(map(torch.equal, weights(spec(budget={"steps": steps})), timed.model.parameters()))


def ko_choice(**params: Any) -> dict[str, Any]:
    return {"name": "ko", "params": params}


class TestDiagnostics:
    LAYERS = ("1.weight", "3.weight")

    def test_what_and_when(self, spec: Build) -> None:
        summary, points = run(spec(diagnostics_every_steps=5, log_every_steps=7, budget={"epochs": 2}))
        averages = set(DIAGNOSTICS) - {"gamma_lambda_max", "collision_share"}
        layered = {f"{name}/{layer}" for name in averages for layer in self.LAYERS}
        assert {name for _, metrics in points for name in metrics} == (
            EVERY_RUN | averages | layered | {"diagnostics_seconds"}
        )
        for name in (averages | layered) - {"weight_correlation"}:
            assert list(curve(points, name)) == [5, 10, 15, 20, 25], name
        assert list(curve(points, "weight_correlation")) == [5, 10, 13, 15, 20, 25, 26]
        for name in averages - {"weight_correlation"}:
            for step, value in curve(points, name).items():
                layers = [curve(points, f"{name}/{layer}")[step] for layer in self.LAYERS]
                assert value == pytest.approx(sum(layers) / 2)
        assert not [name for name in summary.metrics if "/" in name]  # a summary has the averages
        assert summary.metrics["lambda_max"] == curve(points, "lambda_max")[25]

    def test_no_step_has_two_values_of_one_metric(self, spec: Build) -> None:
        """A validation measures the weight correlation after the step, a diagnosis before."""
        _, points = run(spec(diagnostics_every_steps=1, eval_every_steps=4, budget={"steps": 10}))
        seen = [(step, name) for step, metrics in points for name in metrics]
        assert len(seen) == len(set(seen))
        undisturbed = run(spec(eval_every_steps=4, budget={"steps": 10}))[1]
        for step, value in curve(undisturbed, "weight_correlation").items():
            assert curve(points, "weight_correlation")[step] == value

    @pytest.mark.parametrize(
        ("optimizer", "adds"),
        [
            ("sgd", set()),
            ("muon", set()),
            (ko_choice(), {"gamma_lambda_max"}),
            (ko_choice(base="muon", lr=0.02, bounded=True), {"gamma_lambda_max"}),
            (ko_choice(collision="hard"), {"collision_share"}),
            (ko_choice(collision="none"), set()),
        ],
    )
    def test_every_optimizer_has_them(self, spec: Build, optimizer: Any, adds: set[str]) -> None:
        _, points = run(spec(optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 2}))
        always = set(DIAGNOSTICS) - {"gamma_lambda_max", "collision_share"}
        found = {name for _, metrics in points for name in metrics if name in DIAGNOSTICS}
        assert found == always | adds
        for name in adds:
            assert list(curve(points, f"{name}/1.weight")) == [1, 2]

    @pytest.mark.parametrize(
        ("optimizer", "more"),
        [
            ("adam", {"gradient_clip": 0.05}),
            (ko_choice(collision="hard"), {}),
            (ko_choice(group_size=8, fade="cosine"), {"precision": "bf16"}),
        ],
    )
    def test_they_change_nothing(self, spec: Build, optimizer: Any, more: dict[str, Any]) -> None:
        with_them = spec(optimizer=optimizer, diagnostics_every_steps=1, **more)
        assert all(map(torch.equal, weights(with_them), weights(spec(optimizer=optimizer, **more))))

    def test_gradients_are_those_that_the_optimizer_gets(self, spec: Build) -> None:
        """Clipped: the energies of all rows add up to the square of what the norm is clipped to."""
        sgd = {"name": "sgd", "params": {"lr": 1e-3}}
        _, points = run(spec(optimizer=sgd, gradient_clip=0.01, diagnostics_every_steps=1, budget={"steps": 1}))
        rows = {"1.weight": 32, "3.weight": 10}
        square = sum(n * curve(points, f"velocity_energy/{layer}")[1] for layer, n in rows.items())
        assert 0.7 * 0.01**2 < square < 0.01**2  # biases have the rest; unclipped it is some hundred times as much

    def test_gamma_fades(self, spec: Build) -> None:
        optimizer = ko_choice(gamma=0.2, fade="linear")
        _, points = run(spec(optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 4}))
        eigenvalues, products = curve(points, "lambda_max/1.weight"), curve(points, "gamma_lambda_max/1.weight")
        gammas = [products[step] / eigenvalues[step] for step in (1, 2, 3, 4)]
        assert gammas == pytest.approx([0.2, 0.15, 0.1, 0.05])

    def test_shares_are_those_of_the_step(self, spec: Build) -> None:
        """At rate 1 and weights that are close, pairs collide as their speed says: some and not all."""
        model = {"name": "mlp", "params": {"hidden": [256], "init_scale": 0.01}}
        optimizer = ko_choice(collision="hard", rate=1.0)
        _, points = run(spec(model=model, optimizer=optimizer, diagnostics_every_steps=1, budget={"steps": 3}))
        shares = curve(points, "collision_share/1.weight")
        assert list(shares) == [1, 2, 3]
        assert all(0 < share < 1 for share in shares.values())
        assert len(set(shares.values())) > 1

    def test_their_time_is_seen_and_is_not_the_trainings(self, spec: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        def slow(*args: Any) -> ko.Diagnosis:
            waited.append(0.05)
            until = time.perf_counter() + 0.05
            while time.perf_counter() < until:
                pass
            return ko.diagnose(*args)

        waited: list[float] = []
        monkeypatch.setattr("workers.training.run.diagnose", slow)
        summary, points = run(spec(diagnostics_every_steps=1, budget={"steps": 13}))
        assert sum(waited) == pytest.approx(0.65)
        seconds = list(curve(points, "diagnostics_seconds").values())
        assert seconds == sorted(seconds)
        assert seconds[-1] >= 0.65
        assert summary.train_seconds < seconds[-1] < summary.total_seconds

    def test_names_fit_where_metrics_are_stored(self) -> None:
        for choice in MODELS.values():
            inputs = datasets.Inputs((20,), 7, 50) if choice.reads == "text" else datasets.Inputs((3, 32, 32), 10)
            layers = dict(models.build(choice(), inputs, seed=0).named_parameters())
            assert max(map(len, layers)) + 1 + max(map(len, DIAGNOSTICS)) < MAX_NAME


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
        with pytest.raises(ValueError, match="this worker has no GPU"):
            run(spec(device="cuda"))
        with pytest.raises(ValueError, match="fp16"):
            run(spec(device="auto", precision="fp16"))

    def test_batch_larger_than_data(self, spec: Build) -> None:
        with pytest.raises(ValueError, match="batch_size 801 is larger than the 800 training records"):
            run(spec(batch_size=801))

    def test_absent_data(self, spec: Build, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="kotrain data fetch mnist"):
            train(spec(dataset="mnist"), lambda step, metrics: None, lambda: None, data_dir=tmp_path)


def test_bf16_trains(spec: Build) -> None:
    summary, points = run(spec(precision="bf16", budget={"epochs": 5}))
    assert curve(points, "val_loss")[65] < curve(points, "val_loss")[13]
    assert summary.metrics["train_loss"] != run(spec(budget={"epochs": 5}))[0].metrics["train_loss"]


def test_deterministic_mode_is_given_back(spec: Build) -> None:
    run(spec(budget={"steps": 1}))
    assert not torch.are_deterministic_algorithms_enabled()
