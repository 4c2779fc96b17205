"""A run that is stopped at any point and resumed in another process ends bit-identically to an uninterrupted run."""

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

from service.specs.states import Reason
from service.specs.summary import Summary
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
class SplitRun:
    """A run in pieces, each of which is stopped at its n-th check for a stop, n = `checks`; None: a single piece."""

    spec: TrainSpec
    data_dir: Path
    folder: Path
    checks: int | None = None
    points: list[tuple[int, str, float]] = field(default_factory=list)
    pieces: int = 0
    steps: list[int] = field(default_factory=list)
    """Steps of the checkpoints."""

    def finish(self) -> tuple[Summary, dict[str, Tensor]]:
        """Train to the end; return the summary and the weights."""
        while True:
            run = self._next()
            summary = run.execute(self._stop())
            if summary.reason is not Reason.CANCELLED:
                return summary, run.model.state_dict()

    def _next(self) -> Run:
        self.pieces += 1
        # Another process would have other states of the global generators.
        torch.manual_seed(self.pieces)
        random.seed(self.pieces)
        np.random.seed(self.pieces)
        writer = CheckpointWriter(self.folder, math.inf, self._saved, pytest.fail)
        run = Run(self.spec, self._report, self.data_dir, writer)
        if self.steps:
            run.restore(checkpoint.read(self.folder / f"{self.steps[-1]}.pt"))
        return run

    def _stop(self) -> Callable[[], Stop | None]:
        # The number grows, so that a validation with more batches than `checks` can be completed.
        remaining = math.inf if self.checks is None else self.checks + self.pieces // 2

        def should_stop() -> Stop | None:
            nonlocal remaining
            remaining -= 1
            return Stop.PAUSE if remaining <= 0 else None

        return should_stop

    def _saved(self, saved: Saved) -> None:
        self.steps.append(saved.step)

    def _report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points += [(step, name, value) for name, value in metrics.items() if name not in IN_SECONDS]


@pytest.fixture
def compare(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SplitRun]:
    """Assert that a spec has equal results in pieces and in a single piece; return the run in pieces."""
    monkeypatch.setattr(datasets, "_EVALUATION_RECORDS", 1)  # so that an evaluation takes more than one batch

    def compare(body: dict[str, Any], checks: int) -> SplitRun:
        defaults = {"budget": {"epochs": 3}, "device": "cpu", "eval_every_steps": 2, "log_every_steps": 1}
        spec = TrainSpec.model_validate({"batch_size": 20, "optimizer": "adam"} | defaults | body)
        whole, split_run = (SplitRun(spec, data_dir, tmp_path, piece_checks) for piece_checks in (None, checks))
        (expected, expected_weights), (summary, weights) = whole.finish(), split_run.finish()
        assert whole.pieces == 1
        assert split_run.pieces > 1
        assert weights.keys() == expected_weights.keys()
        assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)
        assert repr(sorted(whole.points)) == repr(sorted(split_run.points))  # as text, since NaN != NaN
        timed = {"metrics", "train_seconds", "total_seconds", "memory", "target"}
        assert summary.model_dump(exclude=timed) == expected.model_dump(exclude=timed)
        for name in summary.metrics.keys() - IN_SECONDS:
            assert summary.metrics[name] == expected.metrics[name]
        return split_run

    return compare


CONTROLS = {
    "noise": {"control": "noise", "strength": 0.1, "base": "sgd"},
    "orthogonality": {"control": "orthogonality", "strength": 0.1, "base": "adamw"},
    "centralization": {"control": "centralization", "base": "adam"},
}
BIMAXWELL_BASES = [
    "sgd",
    "muon",
    "pytorch_optimizer/adafactor",
    "pytorch_optimizer/spam",
]
"""Bases with states of all kinds: none, split groups, other number formats, masks."""
LIBRARIES = {
    "pytorch_optimizer/magma": {},
    "torch/lbfgs": {"max_iter": 3, "lr": 0.1},
    "pytorch_optimizer/adahessian": {},
    "pytorch_optimizer/alig": {},
    "pytorch_optimizer/ranger21": {},
    "pytorch_optimizer/sam": {},
    "pytorch_optimizer/soap": {},
    "pytorch_optimizer/wsam": {},
    "schedulefree/adamwschedulefree": {},
}
EVERY_OPTIMIZER = (
    OPTIMIZERS
    | {name: {"name": "control", "params": params} for name, params in CONTROLS.items()}
    | {name: {"name": name, "params": params} for name, params in LIBRARIES.items()}
    | {"ko on schedule-free": ko(base="schedulefree/sgdschedulefree")}
    | {f"bimaxwell ({base})": {"name": "bimaxwell", "params": {"base": base}} for base in BIMAXWELL_BASES}
)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_resumes_with_optimizer(compare: Callable[..., SplitRun], optimizer: str) -> None:
    compare(TASKS["textcnn"] | {"optimizer": EVERY_OPTIMIZER[optimizer]}, checks=7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("task", TASKS)
def test_resumes_with_model_and_schedule(compare: Callable[..., SplitRun], task: str, schedule: str) -> None:
    hard = ko(collision="hard", rate=1.0, fade="cosine")
    body = TASKS[task] | {"optimizer": hard, "schedule": SCHEDULES[schedule], "gradient_clip": 1.0}
    compare(body | {"budget": {"steps": 9}}, checks=5)


def test_resumes_with_batch_norm(compare: Callable[..., SplitRun]) -> None:
    body = TASKS["crops"] | {
        "model": "timm/test_resnet",
        "batch_size": 5,
        "budget": {"steps": 3},
        "evaluate_test": False,
    }
    compare(body, checks=2)


@pytest.mark.parametrize("checks", range(1, 13))
def test_resumes_from_any_point(compare: Callable[..., SplitRun], checks: int) -> None:
    """Between a step and its validation, within a validation, within either test, at the end of an epoch."""
    compare(TASKS["lstm"] | {"diagnostics_every_steps": 3, "precision": "bf16"}, checks)


def test_resumes_after_pieces_without_a_step(compare: Callable[..., SplitRun]) -> None:
    split_run = compare(TASKS["transformer"] | {"eval_every_steps": 5}, checks=1)
    assert len(split_run.steps) < split_run.pieces - 1  # some end within a validation and write nothing


def test_target_reached_before_stop_ends_resumed_run(compare: Callable[..., SplitRun]) -> None:
    target = {"metric": "val_accuracy", "value": 0.0}
    compare(TASKS["textcnn"] | {"target": target, "stop_at_target": True}, checks=3)


class TestInvalidCheckpoint:
    @pytest.fixture
    def spec(self, spec: Build) -> TrainSpec:
        return spec(budget={"epochs": 2}, eval_every_steps=13)

    @pytest.fixture
    def saved(self, spec: TrainSpec, tmp_path: Path) -> Path:
        """A checkpoint after the first epoch."""
        checkpoints: list[Saved] = []
        checks = iter(range(30))
        writer = CheckpointWriter(tmp_path, math.inf, checkpoints.append, pytest.fail)
        train(
            spec,
            lambda step, metrics: None,
            lambda: Stop.PAUSE if next(checks) == 20 else None,
            data_dir=tmp_path,
            checkpoints=writer,
        )
        (saved,) = checkpoints
        path = tmp_path / saved.name
        assert path.stat().st_size == saved.size_bytes
        assert hashlib.sha256(path.read_bytes()).hexdigest() == saved.sha256
        assert [file.name for file in tmp_path.iterdir()] == [saved.name]
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

    def test_valid_checkpoint_is_resumed(self, spec: TrainSpec, saved: Path) -> None:
        assert "told" in checkpoint.read(saved)["record"]  # the key in checkpoints of all versions
        start, summary, steps = self.start(spec, saved)
        assert (start.position.step, start.notes) == (int(saved.stem), ())
        assert 0 < start.seconds < summary.total_seconds
        assert min(steps) > start.position.step

    @pytest.mark.parametrize(
        ("part", "value"),
        [("engine", 1), ("torch", "2.0.0"), ("device", "cuda"), ("data", "another")],
    )
    def test_different_identity_starts_from_beginning(
        self, spec: TrainSpec, saved: Path, part: str, value: Any
    ) -> None:
        state = checkpoint.read(saved)
        original = state["identity"][part]
        state["identity"][part] = value
        checkpoint.write(state, saved)
        start, summary, steps = self.start(spec, saved)
        assert (start.position.step, start.seconds < 5, min(steps)) == (0, True, 10)
        assert f"{part} {value} instead of {original}" in " ".join(start.notes)
        assert summary.reason is Reason.COMPLETED

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("DefaultCPUAllocator: can't allocate memory"), OSError(errno.EIO, "the disk"), MemoryError()],
    )
    def test_infrastructure_error_is_raised(
        self, spec: TrainSpec, saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(_: Path) -> None:
            raise error

        monkeypatch.setattr(checkpoint, "read", fail)
        with pytest.raises(type(error)) as raised:
            self.start(spec, saved)
        assert raised.value is error

    def test_unreadable_file_starts_from_beginning(self, spec: TrainSpec, saved: Path) -> None:
        saved.write_bytes(b"not a zip archive")
        start, summary, _ = self.start(spec, saved)
        assert (start.position.step, summary.reason) == (0, Reason.COMPLETED)
        assert " ".join(start.notes).startswith("starts from the beginning")

    def test_does_not_execute_pickled_code(self, spec: TrainSpec, saved: Path, tmp_path: Path) -> None:
        trace = tmp_path / "executed"
        torch.save({"identity": Trap(trace)}, saved)
        start, summary, _ = self.start(spec, saved)
        assert (start.position.step, summary.reason) == (0, Reason.COMPLETED)
        assert not trace.exists()


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestCheckpointWriter:
    def test_is_due_by_time_and_earlier_at_end_of_epoch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr("workers.training.checkpoint.time.perf_counter", lambda: now[0])
        writer = CheckpointWriter(tmp_path, 60.0, lambda saved: None, pytest.fail)
        due = []
        for now[0] in (105.0, 107.0, 159.0, 161.0):
            due.append((writer.is_due(at_epoch_end=False), writer.is_due(at_epoch_end=True)))
        assert due == [(False, False), (False, True), (False, True), (True, True)]
        writer.save(Position(1), 0.0, {})
        assert not writer.is_due(at_epoch_end=True)

    def test_writes_each_place_once(self, tmp_path: Path) -> None:
        checkpoints: list[Saved] = []
        writer = CheckpointWriter(tmp_path, 60.0, checkpoints.append, pytest.fail)
        validated = frozenset({"val_loss"})
        for position in (Position(3), Position(3), Position(4), Position(4, validated), Position(4, validated)):
            writer.save(position, 1.5, {"step": torch.tensor(position.step)})
        assert [(saved.step, saved.name, saved.seconds) for saved in checkpoints] == [
            (3, "3.pt", 1.5),
            (4, "4.pt", 1.5),
            (4, "4.pt", 1.5),
        ]
        writer.mark_saved(Position(5))
        writer.save(Position(5), 1.5, {})
        assert len(checkpoints) == 3

    def test_full_disk_is_reported_and_leaves_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "7.pt.new").symlink_to("/dev/full")
        notes: list[str] = []
        writer = CheckpointWriter(tmp_path, 60.0, lambda saved: pytest.fail("saved"), notes.append)
        writer.save(Position(7), 0.0, {"w": torch.zeros(9999)})
        assert notes == ["a checkpoint could not be written to KOTRAIN_FILES: No space left on device"]
        assert list(tmp_path.iterdir()) == []


def test_restores_global_generators() -> None:
    states = checkpoint.random_states()
    first = torch.rand(3), random.random(), np.random.rand(), np.random.randn()
    checkpoint.set_random_states(states)
    repeated = torch.rand(3), random.random(), np.random.rand(), np.random.randn()
    assert torch.equal(first[0], repeated[0])
    assert first[1:] == repeated[1:]
