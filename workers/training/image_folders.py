"""Images in class folders, read from their files for each batch by a pool of threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from service.datasets.image_files import UnreadableImage, is_image_file, load_image
from service.datasets.names import is_system_file
from workers.training.failures import AbsentData
from workers.training.sources import Batch

# ImageNet's channel means and standard deviations, as in torchvision's reference training.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_THREADS = 8
_AHEAD = 2
"""Batches that are read ahead of the one in use."""


class ImageFolder:
    """The image files in the class folders below `root`, resized and center-cropped when they are read.

    Hidden folders and files, those of operating systems and files that are no images are left out. The construction
    lists all files, which takes minutes for a million files on a network disk.

    Args:
        root: the folder that contains the class folders.
        image_size: side of the square crop, in pixels.
        classes: names of the classes, in order of their numbers. Default: the class folders, sorted.

    Raises:
        AbsentData: no class folders, for example because the disk is not mounted.
        ValueError: a class folder without images, or one that is not in `classes`.
    """

    def __init__(self, root: Path, image_size: int, classes: Sequence[str] | None = None) -> None:
        try:
            found = sorted(
                entry.name for entry in os.scandir(root) if entry.is_dir() and not is_system_file(entry.name)
            )
        except FileNotFoundError:
            found = []
        if not found:
            raise AbsentData(f"there are no class folders in {root}")
        self.classes = found if classes is None else list(classes)
        number_of = {name: number for number, name in enumerate(self.classes)}
        if unknown := [name for name in found if name not in number_of]:
            raise ValueError(
                f"{root.parent.name}/{root.name} has the class folder '{unknown[0]}', which the training part lacks; "
                "both need the same classes"
            )
        self.root = root
        self.samples = [(path, number_of[name]) for name in found for path in _images_below(root / name)]
        self.absent = [name for name in self.classes if name not in found]
        """Classes without a folder."""
        self._transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(image_size * 256 // 224),
                v2.CenterCrop(image_size),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, row: int) -> tuple[Tensor, int]:
        """An image (3, image_size, image_size), float32, and its label. Raises ValueError with the name of the file."""
        path, label = self.samples[row]
        with path.open("rb") as file:
            try:
                image = load_image(file).pixels
            except UnreadableImage as error:
                raise ValueError(
                    f"'{path.relative_to(self.root.parent.parent)}' cannot be read as an image: {error}"
                ) from error
        return self._transform(image.convert("RGB")), label


def _images_below(folder: Path) -> list[Path]:
    """The image files in a class folder and its folders, sorted. Raises ValueError if there are none."""
    images = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_system_file(name)]
        images += [Path(place, name) for name in files if is_image_file(name) and not is_system_file(name)]
    if not images:
        raise ValueError(
            f"the class folder '{folder.relative_to(folder.parents[2])}' has no images; add some or remove the folder"
        )
    return sorted(images)


class FolderSource:
    """Image files, all or those of `rows`, read by threads, which decode images without Python's global lock."""

    def __init__(self, folder: ImageFolder, rows: Tensor | None, device: torch.device) -> None:
        self._folder = folder
        self._rows = torch.arange(len(folder)) if rows is None else rows
        self._device = device
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(_MAX_THREADS, len(os.sched_getaffinity(0))), "images")

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """See `Source`. Raises ValueError for a damaged image, OSError if a file cannot be read."""
        rows = self._rows if order is None else self._rows[order]
        ahead: deque[list[Future[tuple[Tensor, int]]]] = deque()
        try:
            for start in range(0, len(rows), size):
                part = rows[start : start + size].tolist()
                ahead.append([self._threads.submit(self._folder.read, row) for row in part])
                if len(ahead) > _AHEAD:
                    yield self._batch(ahead.popleft())
            while ahead:
                yield self._batch(ahead.popleft())
        finally:
            for futures in ahead:
                for future in futures:
                    future.cancel()

    def _batch(self, futures: list[Future[tuple[Tensor, int]]]) -> Batch:
        images, labels = zip(*(future.result() for future in futures), strict=True)
        inputs, numbers = torch.stack(images), torch.tensor(labels)
        if self._device.type == "cuda":
            inputs = inputs.pin_memory()
        return inputs.to(self._device, non_blocking=True), numbers.to(self._device)
