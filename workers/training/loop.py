"""The training loop: one spec in, metrics while it runs, a summary at its end.

It knows tasks, not labels: what a batch, a loss and a metric are is the task's matter (`workers.training.tasks`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ko import KO, Diagnosis, diagnose, weight_correlation
from service.spec import ENGINE_VERSION, Environment, Memory, Reason, Summary, TargetHit, TrainSpec
from workers.training import datasets, environment, memory, models, optimizers, schedules
from workers.training.device import DTYPES, choose, deterministic
from workers.training.progress import Progress

Report = Callable[[int, Mapping[str, float]], None]
"""Called with the number of optimizer steps done and the metrics measured then."""
Weights = dict[str, Tensor]

# On a GPU the loss is looked at only so often: every look waits for the device.
_STEPS_BETWEEN_LOOKS = 50


def train(
    spec: TrainSpec,
    report: Report,
    should_stop: Callable[[], bool],
    *,
    data_dir: Path,
    report_start: Callable[[Environment, int | None], None] | None = None,
) -> Summary:
    """Train what `spec` says, and tell how it went.

    Args:
        report: gets training metrics every `log_every_steps` and validation metrics at each validation, both before
            the next step; the test metrics once, at the very end.
        should_stop: asked after each step; when it answers True the run ends as cancelled, without a test.
        data_dir: the folder that data sets lie in.
        report_start: gets the environment (versions, device, data hash, seeds) and the number of steps that the budget
            allows (None if it is in seconds) once, before the first step.

    Raises:
        ValueError: this machine cannot do it (no GPU, precision), or the batch is larger than the data.
        FileNotFoundError: the data is not there.
    """
    with deterministic():
        run = Run(spec, report, data_dir)
        if report_start is not None:
            report_start(run.environment(), run.progress.total_steps)
        return run.execute(should_stop)


class _Ended(Exception):
    """The run is over, before its budget is."""

    def __init__(self, reason: Reason, message: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Run:
    """The state of one run; `model` holds the last step's weights, also after `execute`."""

    def __init__(self, spec: TrainSpec, report: Report, data_dir: Path) -> None:
        self._started = time.perf_counter()
        self.spec, self._report_to = spec, report
        self.device = choose(spec.device, spec.precision)
        self._peak = memory.Peak(self.device)
        request = datasets.Request(
            spec.dataset, data_dir, spec.batch_size, spec.seed, self.device, with_test=spec.evaluate_test
        )
        self.task, inputs = datasets.load(request)
        self.model = models.build(spec.model, inputs, spec.seed).to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.progress = Progress.through(spec.budget, self.task.steps_per_epoch, spec.schedule.params.warmup_steps)
        self._validate_every = spec.eval_every_steps or self.task.steps_per_epoch
        self.optimizer = optimizers.build(spec.optimizer, self.model, spec.seed, self.progress.total_steps)
        self.schedule = schedules.build(spec.schedule, self.optimizer, self.progress)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=spec.precision == "fp16")
        self._records_seen = 0
        self._losses: list[tuple[int, Tensor]] = []  # by step, not looked at yet
        self._clock = _Clock(self.device)
        self._diagnostics_seconds = 0.0
        self._seen_at_validation, self._seconds_at_validation, self._validated_step = 0, 0.0, 0
        self._last: dict[str, float] = {}
        self._best: tuple[float, int] | None = None  # the selecting metric, and the step it was met at
        self._best_weights: Weights | None = None
        self._hit: TargetHit | None = None

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.steps

    def environment(self) -> Environment:
        """What this run runs on, with its data hash and seeds."""
        return {
            **environment.describe(self.device),
            "engine_version": ENGINE_VERSION,
            "data_hash": self.task.data_hash,
            "seed": self.spec.seed,
            "split_seed": self.spec.dataset.params.split_seed,
        }

    def execute(self, should_stop: Callable[[], bool]) -> Summary:
        """Train to the end of the budget, or to what ends it earlier, and evaluate."""
        reason, message = Reason.COMPLETED, None
        try:
            self._train(should_stop)
        except _Ended as ended:
            reason, message = ended.reason, ended.message
        if self.spec.evaluate_test and reason in (Reason.COMPLETED, Reason.TARGET_REACHED):
            self._test()
        return Summary(
            reason=reason,
            steps=self.step,
            epochs=self._records_seen / self.task.records,
            train_seconds=self._clock.seconds,
            total_seconds=time.perf_counter() - self._started,
            parameters=sum(p.numel() for p in self.parameters),
            metrics=self._metrics(),
            best_step=None if self._best is None else self._best[1],
            target=self._hit,
            message=message,
            memory=Memory(
                optimizer_state_bytes=memory.of_state(self.optimizer),
                parameter_bytes=memory.of(self.parameters),
                peak_bytes=self._peak.bytes(),
            ),
        )

    def _metrics(self) -> dict[str, float | None]:
        """The last value of each, but the speed over the whole run: since the last validation it may be one step's."""
        metrics = self._last
        if self._records_seen:
            metrics = metrics | {"samples_per_second": self._records_seen / max(self._clock.seconds, 1e-9)}
        return {name: value if math.isfinite(value) else None for name, value in metrics.items()}

    def _train(self, should_stop: Callable[[], bool]) -> None:
        self.model.train()
        with self._clock.running():
            for batch in self._batches():
                self._step(batch)
                if should_stop():
                    raise _Ended(Reason.CANCELLED)
                if self.step % self._validate_every == 0:
                    self._validate()
            if self._validated_step < self.step:
                self._validate()

    def _batches(self) -> Iterator[Any]:
        """Epoch after epoch, until the budget is used up."""
        while True:
            for batch in self.task.train_batches():
                yield batch
                if self.progress.is_over:
                    return

    def _step(self, batch: Any) -> None:
        """One optimizer step; its loss and metrics are those before the step."""
        step, optimizer = self.step + 1, self.optimizer
        logs = step % self.spec.log_every_steps == 0
        diagnoses = self.spec.diagnostics_every_steps is not None and step % self.spec.diagnostics_every_steps == 0
        with self._autocast():
            loss, output = self.task.loss(self.model, batch)
        self._look_at(loss.detach(), step)
        torch.autograd.backward(self._scaler.scale(loss))
        measured = self._measure_gradients(logs or diagnoses)
        diagnosis = self._diagnose() if diagnoses else None
        before = [p.detach().clone() for p in self.parameters] if logs else []
        lr = optimizer.param_groups[0]["lr"]
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad()
        self.progress.count_step(self._clock.seconds_without_waiting)
        if self.schedule is not None:
            self.schedule.step()
        size = self.task.size(batch)
        self._records_seen += size
        if logs:
            sums = {"loss": loss.detach() * size, **self.task.metrics(output.detach(), batch)}
            moved = torch._foreach_sub([p.detach() for p in self.parameters], before)
            norms = {**measured, "update_norm": nn.utils.get_total_norm(moved)}
            self._report(
                {f"train_{name}": float(total) / size for name, total in sums.items()}
                | {"lr": float(lr)}
                | {name: float(norm) for name, norm in norms.items()}
            )
        if diagnosis is not None:
            self._report_diagnosis(diagnosis)

    def _measure_gradients(self, wanted: bool) -> dict[str, Tensor]:
        """Unscale the gradients, and clip them where the spec says so; their norm before that, if it is needed."""
        limit = self.spec.gradient_clip
        if not wanted and limit is None:
            return {}
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if limit is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        return {"grad_norm": norm}

    def _diagnose(self) -> Diagnosis:
        """What weights and gradients say of the neurons; the time that takes is not the training's."""
        with self._clock.paused():
            started = time.perf_counter()
            diagnosis = diagnose(self.model, self.optimizer)
            self._diagnostics_seconds += time.perf_counter() - started
        return diagnosis

    def _report_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Report it after the step, with what that adds; a validation that follows measures its own correlation."""
        with self._clock.paused():
            layers = dict(diagnosis.layers)
            if isinstance(self.optimizer, KO) and (shares := self.optimizer.collision_shares()):
                names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
                layers["collision_share"] = {names[p]: share for p, share in shares.items()}
            averages = Diagnosis(layers).averages
            if self.step % self._validate_every == 0 or self.progress.is_over:
                averages.pop("weight_correlation", None)
            self._report(averages | {"diagnostics_seconds": self._diagnostics_seconds})
            self._report_to(
                self.step, {f"{name}/{layer}": value for name, of in layers.items() for layer, value in of.items()}
            )

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.spec.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.spec.precision])

    def _look_at(self, loss: Tensor, step: int) -> None:
        """End the run at a loss that is not finite; on a GPU, some steps later, but naming the step."""
        if self.device.type == "cpu":
            if not math.isfinite(loss.item()):
                raise _diverged(loss.item(), step)
            return
        self._losses.append((step, loss))
        if len(self._losses) >= min(self.spec.log_every_steps, _STEPS_BETWEEN_LOOKS):
            self._look_at_gathered()

    def _look_at_gathered(self) -> None:
        """Look at the losses since the last look, if there are any."""
        if not self._losses:
            return
        steps, losses = zip(*self._losses, strict=True)
        self._losses = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                raise _diverged(loss, step)

    def _validate(self) -> None:
        with self._clock.paused():
            self._look_at_gathered()
            seconds = self._clock.seconds
            metrics = self._evaluate(self.task.validation_batches())
            self._report(
                {f"val_{name}": value for name, value in metrics.items()}
                | {
                    "weight_correlation": weight_correlation(self.model),
                    "samples_per_second": (self._records_seen - self._seen_at_validation)
                    / max(seconds - self._seconds_at_validation, 1e-9),
                }
            )
            self._seen_at_validation, self._seconds_at_validation = self._records_seen, seconds
            self._validated_step = self.step
            if not math.isfinite(metrics["loss"]):
                raise _Ended(Reason.DIVERGED, f"the validation loss was {metrics['loss']} after step {self.step}")
            self._compare_with_best(metrics)
            self._compare_with_target(metrics, seconds)

    def _compare_with_best(self, metrics: Mapping[str, float]) -> None:
        """Keep the weights of the first of the best validation steps, if they are going to be tested."""
        value = metrics[self.task.selects]
        higher = self.task.higher_is_better[self.task.selects]
        if self._best is None or (value > self._best[0] if higher else value < self._best[0]):
            self._best = (value, self.step)
            if self.spec.evaluate_test:
                self._best_weights = self._copy_of_weights()

    def _compare_with_target(self, metrics: Mapping[str, float], seconds: float) -> None:
        target = self.spec.target
        if (
            target is None
            or self._hit is not None
            or not target.reached_by(metrics[target.metric.removeprefix("val_")])
        ):
            return
        self._hit = TargetHit(step=self.step, wall_seconds=seconds)
        if self.spec.stop_at_target:
            raise _Ended(Reason.TARGET_REACHED)

    def _test(self) -> None:
        """Test the last step's weights (primary) and those of the best validation step (secondary)."""
        results = {f"test_{name}": value for name, value in self._evaluate(self.task.test_batches()).items()}
        selected = self.task.selects
        if self._best is None or self._best_weights is None or self._best[1] == self.step:
            best = results[f"test_{selected}"]
        else:
            last = self._copy_of_weights()
            self.model.load_state_dict(self._best_weights)
            best = self._evaluate(self.task.test_batches())[selected]
            self.model.load_state_dict(last)
        self._report(results | {f"best_test_{selected}": best})

    @torch.inference_mode()
    def _evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Mean loss and metrics over all records of these batches."""
        self.model.eval()
        sums: dict[str, Tensor] = {}
        records = 0
        for batch in batches:
            size = self.task.size(batch)
            with self._autocast():
                loss, output = self.task.loss(self.model, batch)
            for name, value in {"loss": loss.double() * size, **self.task.metrics(output, batch)}.items():
                sums[name] = sums.get(name, 0) + value
            records += size
        self.model.train()
        return {name: float(total) / records for name, total in sums.items()}

    def _copy_of_weights(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _report(self, metrics: dict[str, float]) -> None:
        self._last |= metrics
        self._report_to(self.step, metrics)


def _diverged(loss: float, step: int) -> _Ended:
    return _Ended(Reason.DIVERGED, f"the training loss was {loss} at step {step}")


class _Clock:
    """Seconds spent on training steps; paused while evaluating."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._gathered = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self._gathered + (0.0 if self._since is None else self._now() - self._since)

    @property
    def seconds_without_waiting(self) -> float:
        """Seconds until now, as the CPU sees it: a GPU may still work on steps that it has been handed.

        Waiting for it after every step would slow training down. The CPU cannot be further ahead than the last look
        at the losses, at most `_STEPS_BETWEEN_LOOKS` steps, and `seconds` counts their time in the end.
        """
        return self._gathered + (0.0 if self._since is None else time.perf_counter() - self._since)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs inside."""
        self._since = self._now()
        try:
            yield
        finally:
            self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside."""
        self._stop()
        try:
            yield
        finally:
            self._since = self._now()

    def _stop(self) -> None:
        if self._since is not None:
            self._gathered += self._now() - self._since
            self._since = None

    def _now(self) -> float:
        """The time at which the device has done all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
