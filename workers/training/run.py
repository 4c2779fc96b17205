"""One run: its model, optimizer and data, step after step; and its state, from which another process goes on.

It knows tasks, not labels: what a batch, a loss and a metric are is the task's matter (`workers.training.tasks`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ko import KO, Diagnosis, diagnose, weight_correlation
from service.specs.engine import ENGINE_VERSION
from service.specs.outcome import Environment, Memory, Summary, TargetHit
from service.specs.states import Reason
from service.specs.training import TrainSpec
from workers.training import checkpoint, datasets, environment, memory, models, optimizers, schedules
from workers.training.clock import Clock
from workers.training.device import DTYPES, choose
from workers.training.progress import Progress, Record
from workers.training.stopping import Ended, Losses, Stop

Report = Callable[[int, Mapping[str, float]], None]
"""Called with the number of optimizer steps done and the metrics measured then."""
Weights = dict[str, Tensor]


class Run:
    """The state of one run; `model` holds the last step's weights, also after `execute`."""

    def __init__(
        self, spec: TrainSpec, report: Report, data_dir: Path, keeper: checkpoint.Keeper | None = None
    ) -> None:
        self._started = time.perf_counter()
        self.spec, self._report_to, self._keeper = spec, report, keeper
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
        self._losses = Losses(self.device, spec.log_every_steps)
        self._clock = Clock(self.device)
        self._record = Record()
        self._best_weights: Weights | None = None
        self._should_stop: Callable[[], Stop | None] = lambda: None
        self._pauses = False

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.steps

    @property
    def place(self) -> checkpoint.Place:
        """Where the run is."""
        return checkpoint.Place(self.step, frozenset(self._record.told_of(self.step)))

    @property
    def seconds(self) -> float:
        """Wall-clock since the start of the run, whichever process that was in."""
        return time.perf_counter() - self._started

    def environment(self) -> Environment:
        """What this run runs on, with its data hash and seeds."""
        return {
            **environment.describe(self.device),
            "engine_version": ENGINE_VERSION,
            "data_hash": self.task.data_hash,
            "seed": self.spec.seed,
            "split_seed": self.spec.dataset.params.split_seed,
        }

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, in types that `checkpoint.read` gives back."""
        return {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "best_weights": self._best_weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "task": self.task.state_dict(),
            "random": checkpoint.random_states(),
            "progress": asdict(self.progress),
            "record": asdict(self._record),
            "train_seconds": self._clock.seconds,
            "seconds": self.seconds,
            "peak_bytes": self._peak.bytes(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be where another process's run of this spec was.

        Raises:
            checkpoint.Unusable: it had other data, another engine, another torch, or another kind of device.
        """
        had, has = state["identity"], self._identity()
        differs = [
            f"{name} {had.get(name)} instead of {value}" for name, value in has.items() if had.get(name) != value
        ]
        if differs:
            raise checkpoint.Unusable(f"it is of {', '.join(differs)}")
        self.model.load_state_dict(state["model"])
        self._best_weights = state["best_weights"] and {k: v.to(self.device) for k, v in state["best_weights"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        for name, value in state["progress"].items():  # the schedule holds on to this very object
            setattr(self.progress, name, value)
        self._record = Record(**state["record"])
        self._clock = Clock(self.device, state["train_seconds"])
        self._started -= state["seconds"]
        self._peak.was_before(state["peak_bytes"])
        if self._keeper is not None:
            self._keeper.has(self.place)
        checkpoint.set_random_states(state["random"])  # last: building and loading may have drawn

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a run to go on as if nothing had happened."""
        return {
            "engine": ENGINE_VERSION,
            "torch": str(torch.__version__),
            "device": self.device.type,
            "data": self.task.data_hash,
        }

    def execute(self, should_stop: Callable[[], Stop | None]) -> Summary:
        """Train to the end of the budget, or to what ends it earlier, and evaluate."""
        self._should_stop = should_stop
        reason, message = self._end_of(self._train)
        if self.spec.evaluate_test and reason in (Reason.COMPLETED, Reason.TARGET_REACHED):
            ended, _ = self._end_of(self._test)
            reason = ended if ended is Reason.CANCELLED else reason
        if self._pauses:
            saved, why = self._end_of(self._save)
            if saved is Reason.DIVERGED:  # some of the last losses had not been looked at
                reason, message = saved, why
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

    def _end_of(self, phase: Callable[[], None]) -> tuple[Reason, str | None]:
        """Go through a phase of the run: how it ended, and what there is to say of that."""
        try:
            phase()
        except Ended as ended:
            return ended.reason, ended.message
        return Reason.COMPLETED, None

    def _heed(self) -> None:
        """End the run where that is wanted from outside."""
        stop = self._should_stop()
        if stop:
            self._pauses = stop is Stop.PAUSE
            raise Ended(Reason.CANCELLED)

    def _save(self) -> None:
        """Write a checkpoint, if anybody keeps them; of steps whose loss was looked at."""
        if self._keeper is not None:
            self._losses.look()
            self._keeper.save(self.place, self.seconds, self.state())

    def _metrics(self) -> dict[str, float | None]:
        """The last value of each, but the speed over the whole run: since the last validation it may be one step's."""
        metrics = self._record.last
        if self._record.records_seen:
            metrics = metrics | {"samples_per_second": self._record.records_seen / max(self._clock.seconds, 1e-9)}
        return {name: value if math.isfinite(value) else None for name, value in metrics.items()}

    def _train(self) -> None:
        self.model.train()
        if self._record.hit is not None and self.spec.stop_at_target:  # it was stopped while it was tested
            raise Ended(Reason.TARGET_REACHED)
        with self._clock.running():
            if self.step:
                self._validate_if_due()  # it may have been stopped between a step and its validation
            for batch in self._batches():
                self._step(batch)
                self._heed()
                self._validate_if_due()
                self._save_if_due()

    def _batches(self) -> Iterator[Any]:
        """Epoch after epoch, until the budget is used up."""
        while not self.progress.is_over:
            for batch in self.task.train_batches():
                yield batch
                if self.progress.is_over:
                    return

    def _validate_if_due(self) -> None:
        """After every so many steps, and after the last one."""
        is_due = self.step % self._validate_every == 0 or self.progress.is_over
        if is_due and self._record.validated_step < self.step:
            self._validate()

    def _save_if_due(self) -> None:
        at_epoch_end = self.step % self.task.steps_per_epoch == 0 or self.progress.is_over
        if self._keeper is not None and self._keeper.is_due(at_epoch_end=at_epoch_end):
            with self._clock.paused():
                self._save()

    def _step(self, batch: Any) -> None:
        """One optimizer step; its loss and metrics are those before the step."""
        step, optimizer = self.step + 1, self.optimizer
        logs = step % self.spec.log_every_steps == 0
        diagnoses = self.spec.diagnostics_every_steps is not None and step % self.spec.diagnostics_every_steps == 0
        with self._autocast():
            loss, output = self.task.loss(self.model, batch)
        self._losses.add(loss.detach(), step)
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
        self._record.records_seen += size
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
            self._record.diagnostics_seconds += time.perf_counter() - started
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
            self._report(averages | {"diagnostics_seconds": self._record.diagnostics_seconds})
            self._tell({f"{name}/{layer}": value for name, of in layers.items() for layer, value in of.items()})

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.spec.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.spec.precision])

    def _validate(self) -> None:
        with self._clock.paused():
            self._losses.look()
            seconds = self._clock.seconds
            metrics = self._evaluate(self.task.validation_batches())
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
            if not math.isfinite(metrics["loss"]):
                raise Ended(Reason.DIVERGED, f"the validation loss was {metrics['loss']} after step {self.step}")
            self._compare_with_best(metrics)
            self._compare_with_target(metrics, seconds)

    def _compare_with_best(self, metrics: Mapping[str, float]) -> None:
        """Keep the weights of the first of the best validation steps, if they are going to be tested."""
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
        """Test the last step's weights (primary) and those of the best validation step (secondary)."""
        results = {f"test_{name}": value for name, value in self._evaluate(self.task.test_batches()).items()}
        selected = self.task.selects
        if self._record.best is None or self._best_weights is None or self._record.best[1] == self.step:
            best = results[f"test_{selected}"]
        else:
            last = self._copy_of_weights()
            self.model.load_state_dict(self._best_weights)
            try:
                best = self._evaluate(self.task.test_batches())[selected]
            finally:  # even if it was stopped: a checkpoint may follow
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
            self._heed()
        self.model.train()
        return {name: float(total) / records for name, total in sums.items()}

    def _copy_of_weights(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _report(self, metrics: dict[str, float]) -> None:
        self._record.last |= metrics
        self._tell(metrics)

    def _tell(self, metrics: dict[str, float]) -> None:
        self._record.told = self.step, [*self._record.told_of(self.step), *metrics]
        self._report_to(self.step, metrics)
