"""Data sets as the engine reads them: splits, augmentation and vocabularies."""

from __future__ import annotations

import pickle
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.datasets.layouts import LAYOUTS
from service.specs.catalog.datasets import Cifar10, Digits, DigitsParams
from workers.training.datasets import BUILDERS, ImageSet, Request, TextSet, load
from workers.training.readers import cifar_pickles
from workers.training.sources import augmented, normalizer
from workers.training.words import PADDING, UNKNOWN, Words

CPU = torch.device("cpu")


def request(choice: Any, data_dir: Path, *, batch_size: int = 8, with_test: bool = True) -> Request:
    return Request(choice, data_dir, batch_size, 0, CPU, with_test=with_test)


def records(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def rows(part: tuple[torch.Tensor, torch.Tensor]) -> set[bytes]:
    """The records as a set of bytes; no two digits are equal."""
    return {image.numpy().tobytes() for image in part[0]}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("digits", "imagenet")])
def test_each_layout_has_a_reader(name: str) -> None:
    builder = BUILDERS[name]
    assert isinstance(builder, ImageSet | TextSet)
    assert builder.readers.keys() == {layout.form for layout in LAYOUTS[name]}


class TestDigits:
    def test_seeded_split_is_stratified_and_disjoint(self, tmp_path: Path) -> None:
        task, inputs = load(request(Digits(), tmp_path))
        parts = [records(b) for b in (task.train_batches(), task.validation_batches(), task.test_batches())]
        assert [len(labels) for _, labels in parts] == [800, 200, 797]
        assert inputs.shape == (1, 8, 8)
        for _, labels in parts:
            shares = labels.bincount(minlength=10) / len(labels)
            assert (shares - 0.1).abs().max() < 0.01
        images = torch.cat([images for images, _ in parts]).flatten(1)
        assert len(images.unique(dim=0)) == 1797  # no two images of the set are equal
        assert images.max() == 1

    def test_split_depends_on_split_seed(self, tmp_path: Path) -> None:
        tests = []
        for seed in (0, 0, 2**40):
            task, _ = load(request(Digits(params=DigitsParams(split_seed=seed)), tmp_path))
            tests.append(records(task.test_batches())[0])
        assert torch.equal(tests[0], tests[1])
        assert not torch.equal(tests[0], tests[2])

    def test_fixed_test_set_is_disjoint_from_every_training_and_validation_set(self, tmp_path: Path) -> None:
        seeds = (0, 1, 2**40)
        parts = [self.parts(tmp_path, split="fixed_test", split_seed=seed) for seed in seeds]
        tests = [test for _, _, test in parts]
        assert all(torch.equal(images, tests[0][0]) for images, _ in tests)
        test_rows = rows(tests[0])
        assert len(test_rows) == 797
        for train, validation, _ in parts:
            assert (len(rows(train)), len(rows(validation))) == (800, 200)
            assert not rows(train) & rows(validation)
            assert not (rows(train) | rows(validation)) & test_rows
            for _, labels in (train, validation):
                counts = parts[0][0][1].bincount() + parts[0][1][1].bincount()
                shares = counts / 1000  # of the classes among the records outside the test set
                assert (labels.bincount(minlength=10) - shares * len(labels)).abs().max() < 1
        for (train, validation, _), (other_train, other_validation, _) in combinations(parts, 2):
            assert rows(train) != rows(other_train)
            assert rows(validation) != rows(other_validation)

    def test_fixed_test_set_is_that_of_seeded_split_0(self, tmp_path: Path) -> None:
        fixed, seeded = (self.parts(tmp_path, split=split) for split in ("fixed_test", "seeded"))
        assert [rows(part) for part in fixed] == [rows(part) for part in seeded]
        assert rows(fixed[2]) != rows(self.parts(tmp_path, split="seeded", split_seed=1)[2])

    @staticmethod
    def parts(data_dir: Path, **params: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        task, _ = load(request(Digits(params=DigitsParams(**params)), data_dir))
        return [records(b) for b in (task.train_batches(), task.validation_batches(), task.test_batches())]

    def test_limit_reduces_training_records(self, tmp_path: Path) -> None:
        task, _ = load(request(Digits(params=DigitsParams(limit=20)), tmp_path))
        assert task.records == 20
        assert len(records(task.validation_batches())[1]) == 200


def write_cifar10(data_dir: Path, images: int = 40) -> None:
    """Write CIFAR-10 without its test set."""
    draw = np.random.default_rng(0)
    (data_dir / "cifar10").mkdir(parents=True)
    np.savez(
        data_dir / "cifar10/cifar10.npz",
        x_train=draw.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8),
        y_train=draw.integers(0, 10, images, dtype=np.uint8),
    )


class TestTestSet:
    def test_is_not_loaded_if_not_evaluated(self, tmp_path: Path) -> None:
        write_cifar10(tmp_path)
        task, _ = load(request(Cifar10(), tmp_path, with_test=False))
        assert task.records == 36
        with pytest.raises(KeyError, match="x_test"):
            load(request(Cifar10(), tmp_path, with_test=True))


class TestPickles:
    def test_rejects_code(self, tmp_path: Path) -> None:
        (tmp_path / "train").write_bytes(pickle.dumps({"data": Path("x"), "fine_labels": []}))
        with pytest.raises(pickle.UnpicklingError, match="only numpy arrays"):
            cifar_pickles("fine_labels")([tmp_path / "train"], "train")


class TestImages:
    def test_normalizer_scales_channels(self) -> None:
        pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
        out = normalizer((0.5, 0.25), (0.5, 0.125), CPU)(pixels)
        torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 6.0]))

    def test_augmentation_crops_and_flips(self) -> None:
        image = torch.arange(1.0, 37).view(1, 1, 6, 6)
        padded = torch.nn.functional.pad(image, [4] * 4)[0, 0]
        crops = [padded[top : top + 6, left : left + 6] for top in range(9) for left in range(9)]
        possible = {tuple(c.flatten().tolist()) for crop in crops for c in (crop, crop.flip(1))}
        augment = augmented(lambda images: images, torch.Generator().manual_seed(1))
        distinct = {tuple(out.flatten().tolist()) for out in augment(image.expand(500, 1, 6, 6))}
        assert distinct <= possible
        assert len(distinct) > 100

    def test_augmentation_depends_on_seed_only(self) -> None:
        images = torch.rand(8, 3, 32, 32)
        first, second, other = (
            augmented(lambda x: x, torch.Generator().manual_seed(seed))(images) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


class TestWords:
    def test_assigns_ids_to_frequent_words(self) -> None:
        words = Words(vocabulary_size=3, max_length=4)
        ids = words.learn(["The cat<br /><br />sat", "the CAT, the dog: a 1 cat", ""])
        assert words.ids == 5  # padding, unknown, `cat`, `the` and one of the words that occur once
        assert ids.shape == (3, 4)
        cat, the = ids[1, 1].item(), ids[1, 0].item()
        assert ids[0, :2].tolist() == [the, cat]
        assert min(cat, the) > UNKNOWN
        assert ids[2].tolist() == [PADDING] * 4
        assert words.read(["cat zebra"]).tolist() == [[cat, UNKNOWN]]

    def test_rejects_texts_without_words(self) -> None:
        with pytest.raises(ValueError, match="no training text contains a word"):
            Words(vocabulary_size=3, max_length=4).learn(["!!!", "\u2764\ufe0f"])

    def test_vocabulary_comes_from_training_texts_only(self) -> None:
        words = Words(vocabulary_size=100, max_length=8)
        words.learn(["a b"])
        assert words.read(["c"]).tolist() == [[UNKNOWN]]
