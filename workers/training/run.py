"""A run: its model, optimizer and data, the loop over steps, and its state, from which another process can continue.

Batches, losses and metrics are defined by the task (`workers.training.tasks`); this module is independent of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ko import KO, Diagnosis, diagnose, weight_correlation
from service.specs.engine import ENGINE_VERSION
from service.specs.states import Reason
from service.specs.summary import Environment, Memory, Summary, TargetHit
from service.specs.training import TrainSpec
from workers.training import checkpoint, datasets, environment, handover, memory, models, optimizers, schedules
from workers.training.clock import Clock
from workers.training.device import choose
from workers.training.evaluation import Evaluator
from workers.training.progress import Progress, Record
from workers.training.stepping import Stepper
from workers.training.stopping import Ended, LossMonitor, Stop

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called with the number of optimizer steps done and the metrics measured at that step."""
Weights = dict[str, Tensor]


class Run:
    """The state of one run; `model` holds the last step's weights, also after `execute`."""

    def __init__(
        self,
        spec: TrainSpec,
        report: OnMetrics,
        data_dir: Path,
        checkpoints: checkpoint.CheckpointWriter | None = None,
        hand_over: Path | None = None,
    ) -> None:
        self._hand_over_to = hand_over
        self._started = time.perf_counter()
        self.spec, self._on_report, self._checkpoints = spec, report, checkpoints
        self.device = choose(spec.device, spec.precision)
        self._peak = memory.Peak(self.device)
        request = datasets.Request(
            spec.dataset, data_dir, spec.batch_size, spec.seed, self.device, with_test=spec.evaluate_test
        )
        self.task, inputs = datasets.load(request)
        self.model = models.build(spec.model, inputs, spec.seed).to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.progress = Progress.from_budget(spec.budget, self.task.steps_per_epoch, spec.schedule.params.warmup_steps)
        self._validate_every = spec.eval_every_steps or self.progress.steps_between_validations(
            self.task.steps_per_epoch
        )
        self.optimizer = optimizers.build(spec.optimizer, self.model, spec.seed, self.progress.total_steps)
        self.schedule = schedules.build(spec.schedule, self.optimizer, self.progress)
        self._stepper = Stepper(
            self.optimizer,
            self.parameters,
            spec.optimizer.loop_needs,
            spec.gradient_clip,
            torch.amp.GradScaler(self.device.type, enabled=spec.precision == "fp16"),
        )
        self._evaluator = Evaluator(self.task, self.model, self.device, spec.precision, self._stop_if_requested)
        self._losses = LossMonitor(self.device, spec.log_every_steps)
        self._clock = Clock(self.device)
        self._record = Record()
        self._best_weights: Weights | None = None
        self._should_stop: Callable[[], Stop | None] = lambda: None
        self._is_paused = False

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.steps

    @property
    def position(self) -> checkpoint.Position:
        """Position of the run: its step, and the metrics reported for it."""
        return checkpoint.Position(self.step, frozenset(self._record.reported_at(self.step)))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, over all its processes."""
        return time.perf_counter() - self._started

    @property
    def notes(self) -> Iterator[str]:
        """What is unusual about the data, and about its optimizer with its model."""
        yield from self.task.notes
        needs = self.spec.optimizer.loop_needs
        if any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            if "modes" in needs:
                yield (
                    f"{self.spec.optimizer.name} evaluates averaged weights, but batch normalization uses statistics "
                    "that were collected with the training weights"
                )
            if "closure" in needs:
                yield "each evaluation within a step updates the statistics of batch normalization"

    def environment(self) -> Environment:
        """Versions and devices that this run uses, its data hash and its seeds."""
        return environment.of_run(self.spec, self.device, self.task.data_hash)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, in types that `checkpoint.read` can load."""
        return {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "best_weights": self._best_weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self._stepper.scaler.state_dict(),
            "task": self.task.state_dict(),
            "random": checkpoint.random_states(),
            "progress": asdict(self.progress),
            "record": self._record.state_dict(),
            "train_seconds": self._clock.seconds,
            "seconds": self.seconds,
            "peak_bytes": self._peak.bytes(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of an earlier process's run of this spec.

        Raises:
            checkpoint.Unusable: its data, engine, torch or kind of device differs.
        """
        stored, identity = state["identity"], self._identity()
        differences = [
            f"{name} {stored.get(name)} instead of {value}"
            for name, value in identity.items()
            if stored.get(name) != value
        ]
        if differences:
            raise checkpoint.Unusable(f"it has {', '.join(differences)}")
        self.model.load_state_dict(state["model"])
        self._best_weights = state["best_weights"] and {k: v.to(self.device) for k, v in state["best_weights"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self._stepper.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        for name, value in state["progress"].items():  # in place: the schedule refers to this object
            setattr(self.progress, name, value)
        self._record = Record.from_state_dict(state["record"])
        self._clock = Clock(self.device, state["train_seconds"])
        self._started -= state["seconds"]
        self._peak.add_earlier(state["peak_bytes"])
        if self._checkpoints is not None:
            self._checkpoints.mark_saved(self.position)
        checkpoint.set_random_states(state["random"])  # last: construction and loading may draw random numbers

    def _identity(self) -> dict[str, Any]:
        """Properties that must be equal for a run to continue bit for bit."""
        return {
            "engine": ENGINE_VERSION,
            "torch": str(torch.__version__),
            "device": self.device.type,
            "data": self.task.data_hash,
        }

    def execute(self, should_stop: Callable[[], Stop | None]) -> Summary:
        """Train until the budget is used up or the run ends early, test the weights, and return the summary."""
        self._should_stop = should_stop
        reason, message = self._run_phase(self._train)
        last_phase = self._test if self.spec.evaluate_test else None
        if self._hand_over_to is not None:
            last_phase = self._hand_over
        if last_phase is not None and reason in (Reason.COMPLETED, Reason.TARGET_REACHED):
            test_reason, _ = self._run_phase(last_phase)
            reason = test_reason if test_reason is Reason.CANCELLED else reason
        if self._is_paused:
            save_reason, save_message = self._run_phase(self._save)
            if save_reason is Reason.DIVERGED:  # one of the losses that had not been checked yet
                reason, message = save_reason, save_message
        hit = self._record.hit
        return Summary(
            reason=reason,
            steps=self.step,
            epochs=self._record.records_seen / self.task.records,
            train_seconds=self._clock.seconds,
            total_seconds=self.seconds,
            parameters=sum(p.numel() for p in self.parameters),
            metrics=self._metrics(),
            best_step=None if self._record.best is None else self._record.best[1],
            target=None if hit is None else TargetHit(step=hit[0], wall_seconds=hit[1]),
            message=message,
            memory=Memory(
                optimizer_state_bytes=memory.of_state(self.optimizer),
                parameter_bytes=memory.of(self.parameters),
                peak_bytes=self._peak.bytes(),
            ),
        )

    def _run_phase(self, phase: Callable[[], None]) -> tuple[Reason, str | None]:
        """Run a phase and return the reason for its end, with a message if it ended early."""
        try:
            phase()
        except Ended as ended:
            return ended.reason, ended.message
        return Reason.COMPLETED, None

    def _stop_if_requested(self) -> None:
        stop = self._should_stop()
        if stop:
            self._is_paused = stop is Stop.PAUSE
            raise Ended(Reason.CANCELLED)

    def _save(self) -> None:
        """Check the pending losses, then write a checkpoint, if the run has a writer."""
        if self._checkpoints is not None:
            self._losses.check()
            self._checkpoints.save(self.position, self.seconds, self.state())

    def _metrics(self) -> dict[str, float | None]:
        """The last value of each metric; the speed is that of the whole run, because the last interval may be short."""
        metrics = self._record.last
        if self._record.records_seen:
            metrics = metrics | {"samples_per_second": self._record.records_seen / max(self._clock.seconds, 1e-9)}
        return {name: value if math.isfinite(value) else None for name, value in metrics.items()}

    def _train(self) -> None:
        self.model.train()
        self._stepper.start_training()
        if self._record.hit is not None and self.spec.stop_at_target:  # the run was interrupted during its test
            raise Ended(Reason.TARGET_REACHED)
        with self._clock.running():
            if self.step:
                self._validate_if_due()  # the run may have been interrupted between a step and its validation
            for batch in self._batches():
                self._step(batch)
                self._stop_if_requested()
                self._validate_if_due()
                self._save_if_due()

    def _batches(self) -> Iterator[Any]:
        """The batches of all epochs, until the budget is used up."""
        while not self.progress.is_over:
            for batch in self.task.train_batches():
                yield batch
                if self.progress.is_over:
                    return

    def _validate_if_due(self) -> None:
        """Validate at the interval of the spec and after the last step."""
        is_due = self.step % self._validate_every == 0 or self.progress.is_over
        if is_due and self._record.validated_step < self.step:
            self._validate()

    def _save_if_due(self) -> None:
        at_epoch_end = self.step % self.task.steps_per_epoch == 0 or self.progress.is_over
        if self._checkpoints is not None and self._checkpoints.is_due(at_epoch_end=at_epoch_end):
            with self._clock.paused():
                self._save()

    def _step(self, batch: Any) -> None:
        """Do one optimizer step. The reported loss and metrics are those of the weights before the step."""
        step = self.step + 1
        logs = step % self.spec.log_every_steps == 0
        diagnoses = self.spec.diagnostics_every_steps is not None and step % self.spec.diagnostics_every_steps == 0
        loss, output = self._evaluator.loss(batch)
        self._losses.add(loss.detach(), step)
        self._stepper.backward(loss)
        measured = self._stepper.measure_gradients(logs or diagnoses)
        diagnosis = self._diagnose() if diagnoses else None
        before = [p.detach().clone() for p in self.parameters] if logs else []
        lr = self._stepper.lr if logs else None
        self._stepper.step(loss, lambda: self._evaluator.loss(batch)[0])
        self.progress.count_step(self._clock.seconds_without_waiting)
        if self.schedule is not None:
            self.schedule.step()
        size = self.task.size(batch)
        self._record.records_seen += size
        if logs:
            sums = {"loss": loss.detach() * size, **self.task.metrics(output.detach(), batch)}
            updates = torch._foreach_sub([p.detach() for p in self.parameters], before)
            norms = {**measured, "update_norm": nn.utils.get_total_norm(updates)}
            self._report(
                {f"train_{name}": float(total) / size for name, total in sums.items()}
                | ({} if lr is None else {"lr": lr})
                | {name: float(norm) for name, norm in norms.items()}
            )
        if diagnosis is not None:
            self._report_diagnosis(diagnosis)

    def _diagnose(self) -> Diagnosis:
        """Diagnostics of the weights and gradients; their time does not count as training time."""
        with self._clock.paused():
            started = time.perf_counter()
            diagnosis = diagnose(self.model, self.optimizer)
            self._record.diagnostics_seconds += time.perf_counter() - started
        return diagnosis

    def _report_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Report diagnostics after the step, with KO's share of collided pairs.

        The weight correlation is left out before a validation, which measures it again.
        """
        with self._clock.paused():
            layers = dict(diagnosis.layers)
            if isinstance(self.optimizer, KO) and (shares := self.optimizer.collision_shares()):
                names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
                layers["collision_share"] = {names[p]: share for p, share in shares.items()}
            averages = Diagnosis(layers).averages
            if self.step % self._validate_every == 0 or self.progress.is_over:
                averages.pop("weight_correlation", None)
            self._report(averages | {"diagnostics_seconds": self._record.diagnostics_seconds})
            self._send({f"{name}/{layer}": value for name, of in layers.items() for layer, value in of.items()})

    def _validate(self) -> None:
        with self._clock.paused():
            self._losses.check()
            seconds = self._clock.seconds
            with self._stepper.evaluation_mode():
                metrics = self._evaluator.evaluate(self.task.validation_batches())
                self._report_validation(metrics, seconds)
                if not math.isfinite(metrics["loss"]):
                    raise Ended(Reason.DIVERGED, f"the validation loss was {metrics['loss']} after step {self.step}")
                self._compare_with_best(metrics)
            self._compare_with_target(metrics, seconds)

    def _report_validation(self, metrics: Mapping[str, float], seconds: float) -> None:
        """Report the metrics of a validation after `seconds` of training."""
        self._report(
            {f"val_{name}": value for name, value in metrics.items()}
            | {
                "weight_correlation": weight_correlation(self.model),
                "samples_per_second": (self._record.records_seen - self._record.seen_at_validation)
                / max(seconds - self._record.seconds_at_validation, 1e-9),
            }
        )
        self._record.seen_at_validation, self._record.seconds_at_validation = self._record.records_seen, seconds
        self._record.validated_step = self.step

    def _compare_with_best(self, metrics: Mapping[str, float]) -> None:
        """Record the best validation step (the first among equals), with its weights if they will be tested."""
        value = metrics[self.task.selects]
        higher = self.task.higher_is_better[self.task.selects]
        if self._record.best is None or (value > self._record.best[0] if higher else value < self._record.best[0]):
            self._record.best = (value, self.step)
            if self.spec.evaluate_test:
                self._best_weights = self._copy_of_weights()

    def _compare_with_target(self, metrics: Mapping[str, float], seconds: float) -> None:
        target = self.spec.target
        if (
            target is None
            or self._record.hit is not None
            or not target.reached_by(metrics[target.metric.removeprefix("val_")])
        ):
            return
        self._record.hit = (self.step, seconds)
        if self.spec.stop_at_target:
            raise Ended(Reason.TARGET_REACHED)

    def _test(self) -> None:
        """Test the weights of the last step (primary) and of the best validation step (secondary)."""
        with self._stepper.evaluation_mode():
            self._report(self._test_metrics())

    def _test_metrics(self) -> dict[str, float]:
        metrics = {f"test_{name}": value for name, value in self._evaluator.evaluate(self.task.test_batches()).items()}
        selected = self.task.selects
        if self._record.best is None or self._best_weights is None or self._record.best[1] == self.step:
            best = metrics[f"test_{selected}"]
        else:
            last = self._copy_of_weights()
            self.model.load_state_dict(self._best_weights)
            try:
                best = self._evaluator.evaluate(self.task.test_batches())[selected]
            finally:  # also if the run is stopped: a checkpoint may follow
                self.model.load_state_dict(last)
        return metrics | {f"best_test_{selected}": best}

    def _hand_over(self) -> None:
        """Write the weights that another process will test."""
        assert self._hand_over_to is not None
        is_last = self._record.best is None or self._record.best[1] == self.step
        with self._stepper.evaluation_mode():
            handover.save(self._hand_over_to, self.model.state_dict(), None if is_last else self._best_weights)

    def _copy_of_weights(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _report(self, metrics: dict[str, float]) -> None:
        self._record.last |= metrics
        self._send(metrics)

    def _send(self, metrics: dict[str, float]) -> None:
        self._record.reported = self.step, [*self._record.reported_at(self.step), *metrics]
        self._on_report(self.step, metrics)
