"""A run that is stopped anywhere and goes on in another process ends as if nobody had stopped it, bit for bit."""

from __future__ import annotations

import errno
import hashlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.specs.outcome import Summary
from service.specs.states import Reason
from service.specs.training import TrainSpec
from tests.unit.workers.training.small import OPTIMIZERS, SCHEDULES, TASKS, ko
from workers.training import checkpoint, datasets
from workers.training.checkpoint import CheckpointWriter, Position, Saved
from workers.training.loop import Start, train
from workers.training.run import Run
from workers.training.stopping import Stop

IN_SECONDS = {"samples_per_second", "diagnostics_seconds"}
Build = Callable[..., TrainSpec]


@dataclass
class Cut:
    """A run in pieces, each ended after so many looks whether it should; None: not cut at all."""

    spec: TrainSpec
    data_dir: Path
    folder: Path
    looks: int | None = None
    points: list[tuple[int, str, float]] = field(default_factory=list)
    pieces: int = 0
    steps: list[int] = field(default_factory=list)
    """At which the checkpoints were."""

    def to_the_end(self) -> tuple[Summary, dict[str, Tensor]]:
        """Summary and weights."""
        while True:
            run = self._next()
            summary = run.execute(self._stop())
            if summary.reason is not Reason.CANCELLED:
                return summary, run.model.state_dict()

    def _next(self) -> Run:
        self.pieces += 1
        # What another process would have in the place of our generators.
        torch.manual_seed(self.pieces)
        random.seed(self.pieces)
        np.random.seed(self.pieces)
        writer = CheckpointWriter(self.folder, math.inf, self._saved, pytest.fail)
        run = Run(self.spec, self._report, self.data_dir, writer)
        if self.steps:
            run.restore(checkpoint.read(self.folder / f"{self.steps[-1]}.pt"))
        return run

    def _stop(self) -> Callable[[], Stop | None]:
        # A little more each time, or a validation of more batches than that would never be got through.
        left = math.inf if self.looks is None else self.looks + self.pieces // 2

        def should_stop() -> Stop | None:
            nonlocal left
            left -= 1
            return Stop.PAUSE if left <= 0 else None

        return should_stop

    def _saved(self, saved: Saved) -> None:
        self.steps.append(saved.step)

    def _report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points += [(step, name, value) for name, value in metrics.items() if name not in IN_SECONDS]


@pytest.fixture
def compare(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cut]:
    """See that a spec comes to the same end in pieces as it does at once; the pieces."""
    monkeypatch.setattr(datasets, "_EVALUATION_RECORDS", 1)  # so that an evaluation takes more than one batch

    def compare(body: dict[str, Any], looks: int) -> Cut:
        rest = {"budget": {"epochs": 3}, "device": "cpu", "eval_every_steps": 2, "log_every_steps": 1}
        spec = TrainSpec.model_validate({"batch_size": 20, "optimizer": "adam"} | rest | body)
        whole, cut = (Cut(spec, data_dir, tmp_path, how) for how in (None, looks))
        (expected, weights), (summary, found) = whole.to_the_end(), cut.to_the_end()
        assert whole.pieces == 1
        assert cut.pieces > 1
        assert weights.keys() == found.keys()
        assert all(torch.equal(weights[name], found[name]) for name in weights)
        assert repr(sorted(whole.points)) == repr(sorted(cut.points))  # as text, in which a NaN equals a NaN
        timed = {"metrics", "train_seconds", "total_seconds", "memory", "target"}
        assert summary.model_dump(exclude=timed) == expected.model_dump(exclude=timed)
        for name in summary.metrics.keys() - IN_SECONDS:
            assert summary.metrics[name] == expected.metrics[name]
        return cut

    return compare


CONTROLS = {
    "noise": {"control": "noise", "strength": 0.1, "base": "sgd"},
    "orthogonality": {"control": "orthogonality", "strength": 0.1, "base": "adamw"},
    "centralization": {"control": "centralization", "base": "adam"},
}
EVERY_OPTIMIZER = OPTIMIZERS | {name: {"name": "control", "params": params} for name, params in CONTROLS.items()}


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_every_optimizer(compare: Callable[..., Cut], optimizer: str) -> None:
    compare(TASKS["textcnn"] | {"optimizer": EVERY_OPTIMIZER[optimizer]}, looks=7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("task", TASKS)
def test_every_kind_of_model_and_schedule(compare: Callable[..., Cut], task: str, schedule: str) -> None:
    hard = ko(collision="hard", rate=1.0, fade="cosine")
    body = TASKS[task] | {"optimizer": hard, "schedule": SCHEDULES[schedule], "gradient_clip": 1.0}
    compare(body | {"budget": {"steps": 9}}, looks=5)


def test_batch_norm(compare: Callable[..., Cut]) -> None:
    body = TASKS["crops"] | {"model": "resnet18", "budget": {"steps": 5}, "evaluate_test": False}
    compare(body | {"eval_every_steps": 4}, looks=2)


@pytest.mark.parametrize("looks", range(1, 13))
def test_wherever_it_is_stopped(compare: Callable[..., Cut], looks: int) -> None:
    """Between a step and its validation, within a validation, within either test, at the end of an epoch."""
    compare(TASKS["lstm"] | {"diagnostics_every_steps": 3, "precision": "bf16"}, looks)


def test_stopped_again_before_the_next_step(compare: Callable[..., Cut]) -> None:
    cut = compare(TASKS["transformer"] | {"eval_every_steps": 5}, looks=1)
    assert len(cut.steps) < cut.pieces - 1  # some came no further than a validation, and wrote nothing


def test_a_target_met_before_the_cut_ends_the_run_after_it(compare: Callable[..., Cut]) -> None:
    target = {"metric": "val_accuracy", "value": 0.0}
    compare(TASKS["textcnn"] | {"target": target, "stop_at_target": True}, looks=3)


class TestWhatIsNotContinued:
    @pytest.fixture
    def spec(self, spec: Build) -> TrainSpec:
        return spec(budget={"epochs": 2})

    @pytest.fixture
    def saved(self, spec: TrainSpec, tmp_path: Path) -> Path:
        """A checkpoint after the first epoch."""
        found: list[Saved] = []
        looks = iter(range(30))
        writer = CheckpointWriter(tmp_path, math.inf, found.append, pytest.fail)
        train(
            spec,
            lambda step, metrics: None,
            lambda: Stop.PAUSE if next(looks) == 20 else None,
            data_dir=tmp_path,
            checkpoints=writer,
        )
        (only,) = found
        path = tmp_path / only.name
        assert path.stat().st_size == only.size_bytes
        assert hashlib.sha256(path.read_bytes()).hexdigest() == only.sha256
        assert [file.name for file in tmp_path.iterdir()] == [only.name]
        return path

    @staticmethod
    def start(spec: TrainSpec, path: Path) -> tuple[Start, Summary, list[int]]:
        starts: list[Start] = []
        steps: list[int] = []
        summary = train(
            spec,
            lambda step, metrics: steps.append(step),
            lambda: None,
            data_dir=path.parent,
            report_start=starts.append,
            resume=path,
        )
        return starts[0], summary, steps

    def test_a_sound_one_is(self, spec: TrainSpec, saved: Path) -> None:
        assert "told" in checkpoint.read(saved)["record"]  # the key in checkpoints of all versions
        start, summary, steps = self.start(spec, saved)
        assert (start.position.step, start.note) == (int(saved.stem), None)
        assert 0 < start.seconds < summary.total_seconds
        assert min(steps) > start.position.step

    @pytest.mark.parametrize(
        ("part", "value"),
        [("engine", 1), ("torch", "2.0.0"), ("device", "cuda"), ("data", "another")],
    )
    def test_another_identity(self, spec: TrainSpec, saved: Path, part: str, value: Any) -> None:
        state = checkpoint.read(saved)
        was = state["identity"][part]
        state["identity"][part] = value
        checkpoint.write(state, saved)
        start, summary, steps = self.start(spec, saved)
        assert (start.position.step, start.seconds < 5, min(steps)) == (0, True, 10)
        assert start.note is not None
        assert f"{part} {value} instead of {was}" in start.note
        assert summary.reason is Reason.COMPLETED

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("DefaultCPUAllocator: can't allocate memory"), OSError(errno.EIO, "the disk"), MemoryError()],
    )
    def test_what_the_machine_is_short_of_makes_no_checkpoint_useless(
        self, spec: TrainSpec, saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(_: Path) -> None:
            raise error

        monkeypatch.setattr(checkpoint, "read", fail)
        with pytest.raises(type(error)) as met:
            self.start(spec, saved)
        assert met.value is error

    def test_no_checkpoint_at_all(self, spec: TrainSpec, saved: Path) -> None:
        saved.write_bytes(b"no zip archive")
        start, summary, _ = self.start(spec, saved)
        assert (start.position.step, summary.reason) == (0, Reason.COMPLETED)
        assert start.note is not None
        assert start.note.startswith("starts from the beginning")

    def test_nothing_in_it_is_executed(self, spec: TrainSpec, saved: Path, tmp_path: Path) -> None:
        trace = tmp_path / "executed"
        torch.save({"identity": Trap(trace)}, saved)
        start, summary, _ = self.start(spec, saved)
        assert (start.position.step, summary.reason) == (0, Reason.COMPLETED)
        assert not trace.exists()


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestCheckpointWriter:
    def test_by_time_and_sooner_at_the_end_of_an_epoch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr("workers.training.checkpoint.time.perf_counter", lambda: now[0])
        writer = CheckpointWriter(tmp_path, 60.0, lambda saved: None, pytest.fail)
        due = []
        for now[0] in (105.0, 107.0, 159.0, 161.0):
            due.append((writer.is_due(at_epoch_end=False), writer.is_due(at_epoch_end=True)))
        assert due == [(False, False), (False, True), (False, True), (True, True)]
        writer.save(Position(1), 0.0, {})
        assert not writer.is_due(at_epoch_end=True)

    def test_a_place_is_written_once(self, tmp_path: Path) -> None:
        found: list[Saved] = []
        writer = CheckpointWriter(tmp_path, 60.0, found.append, pytest.fail)
        validated = frozenset({"val_loss"})
        for position in (Position(3), Position(3), Position(4), Position(4, validated), Position(4, validated)):
            writer.save(position, 1.5, {"step": torch.tensor(position.step)})
        assert [(saved.step, saved.name, saved.seconds) for saved in found] == [
            (3, "3.pt", 1.5),
            (4, "4.pt", 1.5),
            (4, "4.pt", 1.5),
        ]
        writer.mark_saved(Position(5))
        writer.save(Position(5), 1.5, {})
        assert len(found) == 3

    def test_a_full_disk_is_told_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "7.pt.new").symlink_to("/dev/full")
        said: list[str] = []
        writer = CheckpointWriter(tmp_path, 60.0, lambda saved: pytest.fail("saved"), said.append)
        writer.save(Position(7), 0.0, {"w": torch.zeros(9999)})
        assert said == ["a checkpoint could not be written: No space left on device"]
        assert list(tmp_path.iterdir()) == []


def test_generators_of_the_process_are_kept() -> None:
    states = checkpoint.random_states()
    first = torch.rand(3), random.random(), np.random.rand(), np.random.randn()
    checkpoint.set_random_states(states)
    again = torch.rand(3), random.random(), np.random.rand(), np.random.randn()
    assert torch.equal(first[0], again[0])
    assert first[1:] == again[1:]
