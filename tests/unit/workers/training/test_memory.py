"""Memory of a run: bytes of parameters and optimizer state, and the peak."""

from __future__ import annotations

import contextlib
import mmap
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from service.specs.summary import Memory
from service.specs.training import TrainSpec
from tests.devices import DEVICES
from tests.programs import run_forked, run_program
from workers.training import memory
from workers.training.loop import train

WIDTHS = (64, 32, 10)
MATRICES = 64 * 32 + 32 * 10
BIASES = 32 + 10
WEIGHTS, TENSORS = MATRICES + BIASES, 4

MIB = 2**20
CPU = torch.device("cpu")


def train_memory(spec: TrainSpec) -> Memory:
    summary = train(spec, lambda step, metrics: None, lambda: None, data_dir=Path("nowhere"))
    assert summary.memory is not None
    return summary.memory


def ko(**params: Any) -> dict[str, Any]:
    return {"name": "ko", "params": params}


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        ({"name": "sgd", "params": {"momentum": 0}}, 0),
        ("sgd", WEIGHTS),  # momentum
        ("lion", WEIGHTS),  # momentum
        ("adam", 2 * WEIGHTS + TENSORS),  # two moments, and a step per tensor
        ("adagrad", WEIGHTS + TENSORS),
        ("rmsprop", WEIGHTS + TENSORS),
        ("nadamw", 2 * WEIGHTS + 2 * TENSORS),  # as Adam, and a product of momenta per tensor
        ("muon", 64 * 32 + 2 * (320 + BIASES) + 3),  # AdamW updates the head and the biases
        (ko(), 2 * WEIGHTS + TENSORS),  # that of the base: collisions have no state
        (ko(collision="hard"), 2 * WEIGHTS + TENSORS),
        (ko(base="sgd", momentum=0.0), 0),
    ],
)
def test_counts_state_and_parameters_exactly(spec: Callable[..., TrainSpec], optimizer: Any, numbers: int) -> None:
    usage = train_memory(spec(optimizer=optimizer, budget={"steps": 2}))
    assert (usage.optimizer_state_bytes, usage.parameter_bytes) == (4 * numbers, 4 * WEIGHTS)


def test_counts_bytes_by_type() -> None:
    tensors = [torch.zeros(3, 5, dtype=torch.float64), torch.zeros(7, dtype=torch.bfloat16), torch.tensor(1)]
    assert memory.of(tensors) == 8 * 15 + 2 * 7 + 8
    assert memory.of([]) == 0


def test_frozen_parameters_have_no_state() -> None:
    layers = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    layers[0].requires_grad_(False)
    optimizer = torch.optim.Adam(layers.parameters())
    layers(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert memory.of_state(optimizer) == 4 * (2 * 6 + 1)


# Runs in its own process: this one may free memory of earlier tests meanwhile, which would hide part of the peak.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from service.specs.training import TrainSpec
from workers.training import memory
from workers.training.loop import train

device, *specs = sys.argv[1:]
peak = memory.Peak(torch.device(device))
torch.ones(100 * 2**20 // 4, device=device)
freed = peak.bytes()
runs = [
    train(TrainSpec.model_validate_json(spec), lambda step, metrics: None, lambda: None, data_dir=Path("nowhere"))
    for spec in specs
]
print(json.dumps([freed, *(run.memory.model_dump() for run in runs)]))
"""


@pytest.fixture(scope="module")
def cpu_memory(spec: Callable[..., TrainSpec]) -> list[Any]:
    """The peak after 100 MiB were freed, and the memory of a run with a large model and of one with a small model."""
    model = {"name": "mlp", "params": {"hidden": [3000, 3000]}}
    specs = [spec(model=model, budget={"steps": 2}, eval_every_steps=2), spec(budget={"steps": 2})]
    output: list[Any] = run_forked(PROGRAM, "cpu", *(spec.model_dump_json() for spec in specs))
    return output


class TestPeak:
    @pytest.mark.parametrize("device", DEVICES)
    def test_includes_freed_memory(self, cpu_memory: list[Any], device: str) -> None:
        peak_bytes, *_ = cpu_memory if device == "cpu" else run_program(PROGRAM, device)
        assert 99 * MIB <= peak_bytes < 200 * MIB  # the kernel counts pages in batches

    def test_excludes_memory_in_use_before(self) -> None:
        """Both memory that is still in use and memory freed before."""
        allocated = mmap.mmap(-1, 100 * MIB)
        allocated.write(bytes(100 * MIB))
        peak = memory.Peak(CPU)
        peak_bytes = peak.bytes()
        allocated.close()
        assert peak_bytes is not None
        assert 0 <= peak_bytes < 20 * MIB

    def test_of_run_includes_weights_gradients_and_state(self, cpu_memory: list[Any]) -> None:
        _, *usages = cpu_memory
        large, small = map(Memory.model_validate, usages)
        assert large.peak_bytes is not None
        assert small.peak_bytes is not None
        tensor_bytes = 2 * large.parameter_bytes + large.optimizer_state_bytes  # gradients are as large as the weights
        assert tensor_bytes > 140 * MIB
        assert tensor_bytes <= large.peak_bytes < 2 * tensor_bytes
        assert small.peak_bytes < 20 * MIB

    def test_is_none_if_kernel_files_cannot_be_opened(self) -> None:
        with no_more_files():
            without_start = memory.Peak(CPU)
        assert without_start.bytes() is None
        peak = memory.Peak(CPU)
        with no_more_files():
            assert peak.bytes() is None
        assert peak.bytes() is not None


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no further files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
