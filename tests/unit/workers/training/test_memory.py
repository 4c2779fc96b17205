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

from service.specs.outcome import Memory
from service.specs.training import TrainSpec
from tests.devices import DEVICES
from tests.programs import run_program
from workers.training import memory
from workers.training.loop import train

WIDTHS = (64, 32, 10)
MATRICES = 64 * 32 + 32 * 10
BIASES = 32 + 10
WEIGHTS, TENSORS = MATRICES + BIASES, 4

MIB = 2**20
CPU = torch.device("cpu")


def measured(spec: TrainSpec) -> Memory:
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
        ("adam", 2 * WEIGHTS + TENSORS),  # two moments, and of each tensor its step
        ("adagrad", WEIGHTS + TENSORS),
        ("rmsprop", WEIGHTS + TENSORS),
        ("nadamw", 2 * WEIGHTS + 2 * TENSORS),  # and its product of momenta
        ("muon", 64 * 32 + 2 * (320 + BIASES) + 3),  # AdamW has the head and the biases
        (ko(), 2 * WEIGHTS + TENSORS),  # what its base has: collisions remember nothing
        (ko(collision="hard"), 2 * WEIGHTS + TENSORS),
        (ko(base="sgd", momentum=0.0), 0),
    ],
)
def test_what_a_run_keeps_is_counted_exactly(spec: Callable[..., TrainSpec], optimizer: Any, numbers: int) -> None:
    found = measured(spec(optimizer=optimizer, budget={"steps": 2}))
    assert (found.optimizer_state_bytes, found.parameter_bytes) == (4 * numbers, 4 * WEIGHTS)


def test_tensors_count_by_their_type() -> None:
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


# In a process of its own: this one may free memory of earlier tests meanwhile, which hides as much of the peak.
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
gone = peak.bytes()
runs = [
    train(TrainSpec.model_validate_json(spec), lambda step, metrics: None, lambda: None, data_dir=Path("nowhere"))
    for spec in specs
]
print(json.dumps([gone, *(run.memory.model_dump() for run in runs)]))
"""


class TestPeak:
    @pytest.mark.parametrize("device", DEVICES)
    def test_remembers_what_is_gone(self, device: str) -> None:
        (found,) = run_program(PROGRAM, device)
        assert 99 * MIB <= found < 200 * MIB  # the kernel counts pages in batches

    def test_starts_where_it_is_made(self) -> None:
        """What is in use, and what was in use before, is no part of it."""
        kept = mmap.mmap(-1, 100 * MIB)
        kept.write(bytes(100 * MIB))
        peak = memory.Peak(CPU)
        found = peak.bytes()
        kept.close()
        assert found is not None
        assert 0 <= found < 20 * MIB

    def test_of_a_run_has_its_weights_gradients_and_state(self, spec: Callable[..., TrainSpec]) -> None:
        model = {"name": "mlp", "params": {"hidden": [3000, 3000]}}
        specs = [spec(model=model, budget={"steps": 2}), spec(budget={"steps": 2})]
        _, *found = run_program(PROGRAM, "cpu", *(one.model_dump_json() for one in specs))
        large, small = map(Memory.model_validate, found)
        assert large.peak_bytes is not None
        assert small.peak_bytes is not None
        kept = 2 * large.parameter_bytes + large.optimizer_state_bytes  # gradients are as large as the weights
        assert kept > 140 * MIB
        assert kept <= large.peak_bytes < 2 * kept
        assert small.peak_bytes < 20 * MIB

    def test_is_unknown_where_the_kernel_lets_nobody_ask(self) -> None:
        with no_more_files():
            unasked = memory.Peak(CPU)
        assert unasked.bytes() is None
        asked = memory.Peak(CPU)
        with no_more_files():
            assert asked.bytes() is None
        assert asked.bytes() is not None


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """The kernel opens no file for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
