from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.datasets.layouts import LAYOUTS
from service.specs.catalog.datasets import Cifar10, Digits, DigitsParams, FolderParams, ImageNet
from workers.training.datasets import BUILDERS, ImageSet, Request, TextSet, load
from workers.training.failures import AbsentData, DataReadError, is_infrastructure_error
from workers.training.readers import cifar_pickles
from workers.training.sources import FolderSource, augmented, image_folder, normalizer
from workers.training.words import PADDING, UNKNOWN, Words

CPU = torch.device("cpu")


def request(choice: Any, data_dir: Path, *, batch_size: int = 8, with_test: bool = True) -> Request:
    return Request(choice, data_dir, batch_size, 0, CPU, with_test=with_test)


def records(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def rows(part: tuple[torch.Tensor, torch.Tensor]) -> set[bytes]:
    """The records of the digits, of which no two are equal."""
    return {image.numpy().tobytes() for image in part[0]}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("digits", "imagenet")])
def test_every_layout_has_a_reader(name: str) -> None:
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
        every = torch.cat([images for images, _ in parts]).flatten(1)
        assert len(every.unique(dim=0)) == 1797  # no image of the set occurs twice
        assert every.max() == 1

    def test_split_seed_decides_the_split(self, tmp_path: Path) -> None:
        tests = []
        for seed in (0, 0, 2**40):
            task, _ = load(request(Digits(params=DigitsParams(split_seed=seed)), tmp_path))
            tests.append(records(task.test_batches())[0])
        assert torch.equal(tests[0], tests[1])
        assert not torch.equal(tests[0], tests[2])

    def test_no_seed_of_a_fixed_test_trains_or_validates_on_a_test_record(self, tmp_path: Path) -> None:
        seeds = (0, 1, 2**40)
        parts = [self.parts(tmp_path, split="fixed_test", split_seed=seed) for seed in seeds]
        tests = [test for _, _, test in parts]
        assert all(torch.equal(images, tests[0][0]) for images, _ in tests)
        tested = rows(tests[0])
        assert len(tested) == 797
        for train, validation, _ in parts:
            assert (len(rows(train)), len(rows(validation))) == (800, 200)
            assert not rows(train) & rows(validation)
            assert not (rows(train) | rows(validation)) & tested
            for _, labels in (train, validation):
                every = parts[0][0][1].bincount(), parts[0][1][1].bincount()
                shares = (every[0] + every[1]) / 1000  # of what is not tested
                assert (labels.bincount(minlength=10) - shares * len(labels)).abs().max() < 1
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert rows(parts[one][0]) != rows(parts[other][0])
            assert rows(parts[one][1]) != rows(parts[other][1])

    def test_a_fixed_test_is_that_of_the_seeded_split_0(self, tmp_path: Path) -> None:
        fixed, seeded = (self.parts(tmp_path, split=split) for split in ("fixed_test", "seeded"))
        assert [rows(part) for part in fixed] == [rows(part) for part in seeded]
        assert rows(fixed[2]) != rows(self.parts(tmp_path, split="seeded", split_seed=1)[2])

    @staticmethod
    def parts(data_dir: Path, **params: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        task, _ = load(request(Digits(params=DigitsParams(**params)), data_dir))
        return [records(b) for b in (task.train_batches(), task.validation_batches(), task.test_batches())]

    def test_limit(self, tmp_path: Path) -> None:
        task, _ = load(request(Digits(params=DigitsParams(limit=20)), tmp_path))
        assert task.records == 20
        assert len(records(task.validation_batches())[1]) == 200


def put_arrays(data_dir: Path, images: int = 40) -> None:
    """CIFAR-10 without a test part."""
    draw = np.random.default_rng(0)
    (data_dir / "cifar10").mkdir(parents=True)
    np.savez(
        data_dir / "cifar10/cifar10.npz",
        x_train=draw.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8),
        y_train=draw.integers(0, 10, images, dtype=np.uint8),
    )


class TestTestSet:
    def test_is_not_even_loaded(self, tmp_path: Path) -> None:
        put_arrays(tmp_path)
        task, _ = load(request(Cifar10(), tmp_path, with_test=False))
        assert task.records == 36
        with pytest.raises(KeyError, match="x_test"):
            load(request(Cifar10(), tmp_path, with_test=True))


class TestPickles:
    def test_code_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "train").write_bytes(pickle.dumps({"data": Path("x"), "fine_labels": []}))
        with pytest.raises(pickle.UnpicklingError, match="only numpy arrays"):
            cifar_pickles("fine_labels")([tmp_path / "train"], "train")


class TestImageFolders:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        for part in ("train", "val"):
            for grey, label in ((50, "cat"), (200, "dog")):
                folder = tmp_path / "imagenet" / part / label
                folder.mkdir(parents=True)
                for number in range(6):
                    Image.new("RGB", (50, 40), (grey, grey, grey)).save(folder / f"{number}.png")
        return tmp_path

    @pytest.mark.usefixtures("pictures")
    def test_classes_and_sizes(self, tmp_path: Path) -> None:
        choice = ImageNet(params=FolderParams(image_size=32))
        task, inputs = load(request(choice, tmp_path, batch_size=4))
        assert (inputs.shape, inputs.classes, task.records) == ((3, 32, 32), 2, 11)
        state = torch.get_rng_state()
        images, labels = records(task.train_batches())
        assert torch.equal(state, torch.get_rng_state())
        assert images.shape == (11, 3, 32, 32)
        assert torch.equal(images[:, 0, 0, 0] > 0, labels == 1)  # dogs are the bright ones
        assert len(records(task.test_batches())[1]) == 12

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_a_part_that_is_empty_is_absent(self, pictures: Path, part: str) -> None:
        """As below a disk that is not mounted."""
        shutil.rmtree(pictures / "imagenet" / part)
        (pictures / "imagenet" / part).mkdir()
        choice = ImageNet(params=FolderParams(image_size=32))
        with pytest.raises(AbsentData, match="no class folders with images"):
            load(request(choice, pictures, batch_size=4))

    def test_a_picture_that_has_gone_is_the_machine_s_trouble(self, pictures: Path) -> None:
        """It is met in a process of the loader, from which only a type and a message come back."""
        source = FolderSource(image_folder(pictures / "imagenet" / "train", 32), None, CPU)
        (pictures / "imagenet" / "train" / "dog" / "3.png").unlink()
        with pytest.raises(DataReadError, match=r"dog/3\.png") as met:
            records(source.batches(4))
        assert is_infrastructure_error(met.value)

    def test_a_picture_that_is_none_is_the_job_s(self, pictures: Path) -> None:
        source = FolderSource(image_folder(pictures / "imagenet" / "train", 32), None, CPU)
        (pictures / "imagenet" / "train" / "dog" / "3.png").write_text("no picture")
        with pytest.raises(OSError, match="cannot identify image file") as met:
            records(source.batches(4))
        assert not is_infrastructure_error(met.value)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch cleans up what is gone
    def test_a_loader_that_is_killed_is_the_machine_s_trouble(self, pictures: Path) -> None:
        batches = iter(FolderSource(image_folder(pictures / "imagenet" / "train", 32), None, CPU).batches(1))
        next(batches)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
        with pytest.raises(DataReadError, match="was lost"):
            for _ in batches:
                pass


class TestImages:
    def test_normalizer(self) -> None:
        pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
        out = normalizer((0.5, 0.25), (0.5, 0.125), CPU)(pixels)
        torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 6.0]))

    def test_augmentation_crops_and_flips(self) -> None:
        image = torch.arange(1.0, 37).view(1, 1, 6, 6)
        padded = torch.nn.functional.pad(image, [4] * 4)[0, 0]
        crops = [padded[top : top + 6, left : left + 6] for top in range(9) for left in range(9)]
        possible = {tuple(c.flatten().tolist()) for crop in crops for c in (crop, crop.flip(1))}
        many = augmented(lambda images: images, torch.Generator().manual_seed(1))(image.expand(500, 1, 6, 6))
        seen = {tuple(out.flatten().tolist()) for out in many}
        assert seen <= possible
        assert len(seen) > 100

    def test_augmentation_follows_its_seed(self) -> None:
        images = torch.rand(8, 3, 32, 32)
        first, second, other = (
            augmented(lambda x: x, torch.Generator().manual_seed(seed))(images) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


class TestWords:
    def test_ids(self) -> None:
        words = Words(vocabulary_size=3, max_length=4)
        ids = words.learn(["The cat<br /><br />sat", "the CAT, the dog: a 1 cat", ""])
        assert words.ids == 5  # cat, the and one of those that occur once
        assert ids.shape == (3, 4)
        cat, the = ids[1, 1].item(), ids[1, 0].item()
        assert ids[0, :2].tolist() == [the, cat]
        assert min(cat, the) > UNKNOWN
        assert ids[2].tolist() == [PADDING] * 4
        assert words.read(["cat zebra"]).tolist() == [[cat, UNKNOWN]]

    def test_vocabulary_comes_from_training_texts_alone(self) -> None:
        words = Words(vocabulary_size=100, max_length=8)
        words.learn(["a b"])
        assert words.read(["c"]).tolist() == [[UNKNOWN]]
