"""Images in class folders: classes, what is left out, and errors of their files."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.specs.catalog.datasets import FolderParams, ImageNet
from workers.training.datasets import Request, load
from workers.training.failures import AbsentData, is_infrastructure_error
from workers.training.image_folders import IMAGENET_MEAN, IMAGENET_STD, FolderSource, ImageFolder
from workers.training.sources import Batch
from workers.training.tasks import Task

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for gray, label in ((50, "cat"), (200, "dog")):
            folder = tmp_path / "imagenet" / part / label
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (50, 40), (gray, gray, gray)).save(folder / f"{number}.png")
    return tmp_path / "imagenet"


def load_task(root: Path, *, with_test: bool = True) -> Task:
    choice = ImageNet(params=FolderParams(image_size=32))
    task, inputs = load(Request(choice, root.parent, 4, 0, CPU, with_test))
    assert inputs.shape == (3, 32, 32)
    return task


def records(batches: Iterator[Batch]) -> Batch:
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def test_reads_classes_and_sizes(root: Path) -> None:
    task = load_task(root)
    assert (task.records, task.notes) == (11, [])
    state = torch.get_rng_state()
    images, labels = records(task.train_batches())
    assert torch.equal(state, torch.get_rng_state())
    assert images.shape == (11, 3, 32, 32)
    assert torch.equal(images[:, 0, 0, 0] > 0, labels == 1)  # dogs are the bright ones
    assert len(records(task.test_batches())[1]) == 12


def test_batches_are_in_order(root: Path) -> None:
    """Threads decode the images in any order."""
    for number, path in enumerate(sorted((root / "train").rglob("*.png"))):
        Image.new("L", (32, 32), number * 20).save(path)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    images, _ = records(FolderSource(ImageFolder(root / "train", 32), None, CPU).batches(5, order))
    gray = (images[:, 0, 0, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
    assert gray.round().int().tolist() == (order * 20).tolist()


def test_batches_that_are_not_needed_leave_no_work(root: Path) -> None:
    before = threading.active_count()
    source = FolderSource(ImageFolder(root / "train", 32), None, CPU)
    for _ in range(20):
        batches = source.batches(1)
        next(batches)
        batches.close()
    assert len(records(source.batches(4))[1]) == 12
    assert threading.active_count() - before <= 8


def test_classes_of_test_part_are_those_of_training_part(root: Path) -> None:
    shutil.rmtree(root / "val" / "cat")
    task = load_task(root)
    assert records(task.test_batches())[1].tolist() == [1] * 6
    assert task.notes == ["the test part has no images of 'cat'"]


def test_rejects_class_that_is_not_trained(root: Path) -> None:
    shutil.copytree(root / "val" / "cat", root / "val" / "eel")
    with pytest.raises(ValueError, match="imagenet/val has the class folder 'eel', which the training part lacks"):
        load_task(root)
    assert load_task(root, with_test=False).records == 11


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_leaves_out_what_systems_add(root: Path, name: str, is_empty: bool) -> None:
    for part in ("train", "val"):
        (root / part / name).mkdir()
        if not is_empty:
            shutil.copy(root / part / "cat" / "0.png", root / part / name / "0.png")
    (root / "train" / "cat" / "._0.png").write_bytes(b"x")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    task = load_task(root)
    assert task.records == 11
    assert records(task.test_batches())[1].tolist() == [0] * 6 + [1] * 6


def test_rejects_class_folder_without_images(root: Path) -> None:
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").touch()
    with pytest.raises(ValueError, match="the class folder 'imagenet/train/eel' has no images"):
        load_task(root)


@pytest.mark.parametrize("part", ["train", "val"])
def test_empty_part_raises_absent_data(root: Path, part: str) -> None:
    """An unmounted disk leaves an empty folder."""
    shutil.rmtree(root / part)
    (root / part).mkdir()
    with pytest.raises(AbsentData, match="no class folders"):
        load_task(root)


def test_turns_images_and_draws_them_over_white(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    half = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 32, 0).repeat(16, 1))
    half.save(root / "train" / "cat" / "0.png", exif=exif)
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(root / "train" / "cat" / "1.png")
    folder = ImageFolder(root / "train", 32)
    turned, white = folder.read(0)[0], folder.read(1)[0]
    assert turned[0, 16, 2] > turned[0, 16, 29]
    assert torch.equal(
        white,
        white.new_tensor([(1 - m) / d for m, d in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)])
        .view(3, 1, 1)
        .expand(3, 32, 32),
    )


def test_missing_image_is_infrastructure_error(root: Path) -> None:
    source = FolderSource(ImageFolder(root / "train", 32), None, CPU)
    (root / "train" / "dog" / "3.png").unlink()
    with pytest.raises(OSError, match=r"dog/3\.png") as error:
        records(source.batches(4))
    assert is_infrastructure_error(error.value)


@pytest.mark.parametrize("content", [b"not an image", b""])
def test_damaged_image_is_error_of_job(root: Path, content: bytes) -> None:
    source = FolderSource(ImageFolder(root / "train", 32), None, CPU)
    (root / "train" / "dog" / "3.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"^'imagenet/train/dog/3\.png' cannot be read as an image") as error:
        records(source.batches(4))
    assert not is_infrastructure_error(error.value)
