"""What makes a comparison of optimizers over shared seeds paired: for one seed every optimizer starts from the same
weights and meets the same records in the same order, with the same crops and flips and the same dropout, bit for bit.
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
class Seen:
    """What a run started from and met in two epochs."""

    start: list[Tensor]
    batches: list[Tensor] = field(default_factory=list)
    """Inputs as the model reads them, a step each."""
    masks: list[Tensor] = field(default_factory=list)
    """What each dropout layer did in each step: 1 kept, 0 dropped, -1 where it was given a 0 and nothing shows."""
    states: list[Tensor] = field(default_factory=list)
    """Torch's global generator after each step: the dropout inside attention draws from it, too."""
    end: list[Tensor] = field(default_factory=list)


Watch = Callable[..., Seen]


@pytest.fixture(scope="module")
def watch(data_dir: Path) -> Watch:
    """Train on a task with an optimizer and tell what it met; each run is made once."""
    made: dict[tuple[str, str, int], Seen] = {}

    def watched(task: str, optimizer: str = REFERENCE, seed: int = SEED) -> Seen:
        key = task, optimizer, seed
        if key not in made:
            made[key] = trained(TASKS[task] | {"optimizer": OPTIMIZERS[optimizer], "seed": seed}, data_dir)
        return made[key]

    return watched


def trained(body: dict[str, Any], data_dir: Path) -> Seen:
    rest = {"budget": {"epochs": 2}, "device": "cpu", "evaluate_test": False, "eval_every_steps": 2}
    run = Run(TrainSpec.model_validate({"batch_size": 20} | body | rest), lambda step, metrics: None, data_dir)
    seen = Seen([tensor.clone() for tensor in run.model.state_dict().values()])

    def read(model: nn.Module, args: tuple[Tensor]) -> None:
        if model.training:
            seen.batches.append(args[0].clone())

    def drop(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if layer.training:
            seen.masks.append(torch.where(args[0] == 0, -1, (output != 0).int()))

    def after_a_step() -> None:
        seen.states.append(torch.get_rng_state())

    run.model.register_forward_pre_hook(read)
    for layer in run.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(drop)
    run.execute(after_a_step)
    seen.end = [tensor.clone() for tensor in run.model.state_dict().values()]
    return seen


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) > 0 and all(map(torch.equal, first, second))


def same_masks(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether every layer dropped the same in every step, wherever both runs show what it did."""
    if len(first) != len(second) or not first:
        return False
    for a, b in zip(first, second, strict=True):
        shown = (a >= 0) & (b >= 0)
        if shown.float().mean() < 0.1 or not torch.equal(a[shown], b[shown]):
            return False
    return True


@pytest.mark.parametrize("optimizer", OTHERS)
class TestEveryOptimizer:
    def test_starts_from_the_same_weights(self, watch: Watch, optimizer: str) -> None:
        for task in TASKS:
            assert equal(watch(task, optimizer).start, watch(task).start), task

    def test_and_goes_its_own_way(self, watch: Watch, optimizer: str) -> None:
        """Or the other tests would compare a run with itself."""
        for task in TASKS:
            assert not equal(watch(task, optimizer).end, watch(task).end), task

    def test_meets_the_same_records_in_the_same_order(self, watch: Watch, optimizer: str) -> None:
        for task in TASKS:
            assert equal(watch(task, optimizer).batches, watch(task).batches), task

    def test_has_the_same_dropped(self, watch: Watch, optimizer: str) -> None:
        for task in DROPPED:
            assert same_masks(watch(task, optimizer).masks, watch(task).masks), task

    def test_draws_nothing_from_the_global_generator(self, watch: Watch, optimizer: str) -> None:
        for task in TASKS:
            assert equal(watch(task, optimizer).states, watch(task).states), task


class TestWhatIsCompared:
    """The tests above look at what they say they look at."""

    def test_two_epochs_are_two_orders_of_the_same_records(self, watch: Watch) -> None:
        batches = watch("digits").batches
        assert [len(batch) for batch in batches] == ([64] * 12 + [32]) * 2
        first, second = torch.cat(batches[:13]).flatten(1), torch.cat(batches[13:]).flatten(1)
        assert not torch.equal(first, second)
        assert torch.equal(first.unique(dim=0), second.unique(dim=0))

    def test_crops_are_all_that_differs_between_images(self, watch: Watch) -> None:
        """Of 72 draws out of 81 crops and 2 flips, most are different; without augmentation there is one image."""
        images = torch.cat(watch("crops").batches).flatten(1)
        assert images.shape == (72, 3 * 32 * 32)
        assert 40 < len(images.unique(dim=0)) < 72

    @pytest.mark.parametrize("task", DROPPED)
    def test_masks_drop_their_share_and_change(self, watch: Watch, task: str) -> None:
        masks = watch(task).masks
        layers, steps = len(masks) // 6, 6
        assert layers * steps == len(masks)
        shown = torch.cat([mask[mask >= 0] for mask in masks])
        assert float((shown == 0).float().mean()) == pytest.approx(DROPPED[task], abs=0.03)
        assert not same_masks(masks[:layers], masks[layers : 2 * layers])


class TestAnotherSeed:
    @pytest.mark.parametrize("task", TASKS)
    def test_starts_from_other_weights(self, watch: Watch, task: str) -> None:
        for a, b in zip(watch(task).start, watch(task, seed=ANOTHER_SEED).start, strict=True):
            assert a.unique().numel() == 1 or not torch.equal(a, b)  # but for what starts at 0 or 1

    @pytest.mark.parametrize("task", ["digits", "textcnn"])
    def test_has_another_order(self, watch: Watch, task: str) -> None:
        for a, b in zip(watch(task).batches, watch(task, seed=ANOTHER_SEED).batches, strict=True):
            assert not torch.equal(a, b)

    def test_has_other_crops(self, watch: Watch) -> None:
        for a, b in zip(watch("crops").batches, watch("crops", seed=ANOTHER_SEED).batches, strict=True):
            assert not torch.equal(a, b)

    @pytest.mark.parametrize("task", DROPPED)
    def test_is_dropped_otherwise(self, watch: Watch, task: str) -> None:
        for a, b in zip(watch(task).masks, watch(task, seed=ANOTHER_SEED).masks, strict=True):
            assert not same_masks([a], [b])
