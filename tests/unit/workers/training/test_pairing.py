"""Paired comparisons over shared seeds: with one seed, every optimizer starts from the same weights and gets the same
records in the same order, with the same crops, flips and dropout, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.specs.training import TrainSpec
from tests.unit.workers.training.small import OPTIMIZERS, TASKS
from workers.training.run import Run

SEED, ANOTHER_SEED = 3, 4


REFERENCE = "sgd"
OTHERS = [name for name in OPTIMIZERS if name != REFERENCE]

DROPPED = {"textcnn": 0.5, "lstm": 0.4, "transformer": 0.3}


@dataclass
class Recording:
    """The weights, batches and random states of a run of two epochs."""

    start: list[Tensor]
    batches: list[Tensor] = field(default_factory=list)
    """Inputs of the model, per step."""
    masks: list[Tensor] = field(default_factory=list)
    """Per step and dropout layer: 1 for kept, 0 for dropped, -1 for an input of 0, which does not show."""
    states: list[Tensor] = field(default_factory=list)
    """State of torch's global generator after each step: dropout inside attention also draws from it."""
    end: list[Tensor] = field(default_factory=list)


Record = Callable[..., Recording]


@pytest.fixture(scope="module")
def record(data_dir: Path) -> Record:
    """Train on a task with an optimizer and return the recording; each run is trained once."""
    recordings: dict[tuple[str, str, int], Recording] = {}

    def recorded(task: str, optimizer: str = REFERENCE, seed: int = SEED) -> Recording:
        key = task, optimizer, seed
        if key not in recordings:
            recordings[key] = train(TASKS[task] | {"optimizer": OPTIMIZERS[optimizer], "seed": seed}, data_dir)
        return recordings[key]

    return recorded


def train(body: dict[str, Any], data_dir: Path) -> Recording:
    fixed = {"budget": {"epochs": 2}, "device": "cpu", "evaluate_test": False, "eval_every_steps": 2}
    run = Run(TrainSpec.model_validate({"batch_size": 20} | body | fixed), lambda step, metrics: None, data_dir)
    recording = Recording([tensor.clone() for tensor in run.model.state_dict().values()])

    def record_batch(model: nn.Module, args: tuple[Tensor]) -> None:
        if model.training:
            recording.batches.append(args[0].clone())

    def record_mask(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if layer.training:
            recording.masks.append(torch.where(args[0] == 0, -1, (output != 0).int()))

    def record_state() -> None:
        recording.states.append(torch.get_rng_state())

    run.model.register_forward_pre_hook(record_batch)
    for layer in run.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(record_mask)
    run.execute(record_state)
    recording.end = [tensor.clone() for tensor in run.model.state_dict().values()]
    return recording


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) > 0 and all(map(torch.equal, first, second))


def same_masks(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether each layer dropped the same positions in each step, where both masks show it."""
    if len(first) != len(second) or not first:
        return False
    for a, b in zip(first, second, strict=True):
        shown = (a >= 0) & (b >= 0)
        if shown.float().mean() < 0.1 or not torch.equal(a[shown], b[shown]):
            return False
    return True


@pytest.mark.parametrize("optimizer", OTHERS)
class TestEqualSeeds:
    def test_start_from_equal_weights(self, record: Record, optimizer: str) -> None:
        for task in TASKS:
            assert equal(record(task, optimizer).start, record(task).start), task

    def test_end_with_different_weights(self, record: Record, optimizer: str) -> None:
        """Otherwise the other tests would compare a run with itself."""
        for task in TASKS:
            assert not equal(record(task, optimizer).end, record(task).end), task

    def test_give_equal_batches_in_equal_order(self, record: Record, optimizer: str) -> None:
        for task in TASKS:
            assert equal(record(task, optimizer).batches, record(task).batches), task

    def test_drop_equal_positions(self, record: Record, optimizer: str) -> None:
        for task in DROPPED:
            assert same_masks(record(task, optimizer).masks, record(task).masks), task

    def test_leave_equal_states_of_global_generator(self, record: Record, optimizer: str) -> None:
        for task in TASKS:
            assert equal(record(task, optimizer).states, record(task).states), task


class TestRecordings:
    """The recordings contain the randomness that the tests above compare."""

    def test_epochs_have_same_records_in_different_order(self, record: Record) -> None:
        batches = record("digits").batches
        assert [len(batch) for batch in batches] == ([64] * 12 + [32]) * 2
        first, second = torch.cat(batches[:13]).flatten(1), torch.cat(batches[13:]).flatten(1)
        assert not torch.equal(first, second)
        assert torch.equal(first.unique(dim=0), second.unique(dim=0))

    def test_images_differ_by_crops_and_flips(self, record: Record) -> None:
        """Of 72 draws out of 81 crops and 2 flips, most are different; without augmentation there is one image."""
        images = torch.cat(record("crops").batches).flatten(1)
        assert images.shape == (72, 3 * 32 * 32)
        assert 40 < len(images.unique(dim=0)) < 72

    @pytest.mark.parametrize("task", DROPPED)
    def test_masks_drop_their_share_and_change_between_steps(self, record: Record, task: str) -> None:
        masks = record(task).masks
        layers, steps = len(masks) // 6, 6
        assert layers * steps == len(masks)
        shown = torch.cat([mask[mask >= 0] for mask in masks])
        assert float((shown == 0).float().mean()) == pytest.approx(DROPPED[task], abs=0.03)
        assert not same_masks(masks[:layers], masks[layers : 2 * layers])


class TestAnotherSeed:
    @pytest.mark.parametrize("task", TASKS)
    def test_starts_from_different_weights(self, record: Record, task: str) -> None:
        for a, b in zip(record(task).start, record(task, seed=ANOTHER_SEED).start, strict=True):
            assert a.unique().numel() == 1 or not torch.equal(a, b)  # except parameters that start at 0 or 1

    @pytest.mark.parametrize("task", ["digits", "textcnn"])
    def test_has_different_order(self, record: Record, task: str) -> None:
        for a, b in zip(record(task).batches, record(task, seed=ANOTHER_SEED).batches, strict=True):
            assert not torch.equal(a, b)

    def test_has_different_crops(self, record: Record) -> None:
        for a, b in zip(record("crops").batches, record("crops", seed=ANOTHER_SEED).batches, strict=True):
            assert not torch.equal(a, b)

    @pytest.mark.parametrize("task", DROPPED)
    def test_drops_different_positions(self, record: Record, task: str) -> None:
        for a, b in zip(record(task).masks, record(task, seed=ANOTHER_SEED).masks, strict=True):
            assert not same_masks([a], [b])
