"""Where batches come from: tensors in memory, or image files read by worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from workers.training.failures import AbsentData, DiskTrouble, is_infrastructure_error

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and labels (B,), both on the run's device."""
Prepare = Callable[[Tensor], Tensor]
"""Turns stored inputs of a batch into what a model reads."""

# ImageNet's channel means and standard deviations, as in torchvision's reference training.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MOST_PROCESSES = 8
_LOADER_DIED = "DataLoader worker (pid"
"""How torch says that a process that reads data was killed, or has no shared memory left."""


class Source(Protocol):
    """Records that come in batches."""

    generator: torch.Generator | None
    """What the preparation of a batch draws from, if it does."""

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """Records in batches of `size`: those of `order`, one after the other, or all; the last batch may be short."""
        ...


class TensorSource:
    """Inputs (N, ...) and labels (N,) on the device; `prepare`, drawing from `generator`, is applied to each batch."""

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        prepare: Prepare | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self._inputs, self._labels, self._prepare = inputs, labels, prepare
        self.generator = generator

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """See `Source`."""
        if order is not None:
            order = order.to(self._labels.device)
        for start in range(0, len(self) if order is None else len(order), size):
            rows = slice(start, start + size)
            if order is None:
                inputs, labels = self._inputs[rows], self._labels[rows]
            else:
                inputs = self._inputs.index_select(0, order[rows])
                labels = self._labels.index_select(0, order[rows])
            yield (inputs if self._prepare is None else self._prepare(inputs)), labels


def image_folder(root: Path, image_size: int) -> ImageFolder:
    """The image files below the class folders in `root`, to be resized and centre-cropped.

    Making it lists every file, which takes minutes for a million on a network's disk.

    Raises:
        AbsentData: there are none, as below a disk that is not mounted.
    """
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(image_size * 256 // 224),
            v2.CenterCrop(image_size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    try:
        return _Images(root, transform)
    except FileNotFoundError as error:
        raise AbsentData(f"there are no class folders with images in {root}: {error}") from error


class _Images(ImageFolder):  # type: ignore[misc]  # torchvision ships no types
    """`ImageFolder` in a process of the loader, from which an error comes back by its type and message alone."""

    def __getitem__(self, index: int) -> Any:
        try:
            return super().__getitem__(index)
        except OSError as error:
            if is_infrastructure_error(error):
                raise DiskTrouble(str(error)) from error
            raise


class FolderSource:
    """Image files, all or those of `rows`, decoded and transformed by worker processes."""

    def __init__(self, folder: ImageFolder, rows: Tensor | None, device: torch.device) -> None:
        self._folder = folder
        self._rows = torch.arange(len(folder)) if rows is None else rows
        self._device = device
        self.generator: torch.Generator | None = None  # nothing is drawn

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """See `Source`."""
        rows = self._rows if order is None else self._rows[order]
        loader = DataLoader(
            Subset(self._folder, rows.tolist()),
            batch_size=size,
            num_workers=min(_MOST_PROCESSES, len(os.sched_getaffinity(0))),
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # so that the loader does not advance the global one
        )
        for inputs, labels in _read_by(loader):
            yield inputs.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def _read_by(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Its batches. Raises DiskTrouble where one of its processes is lost, for which torch has a dozen errors."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (EOFError, ConnectionError) as error:
            raise DiskTrouble("a process that reads the data was lost") from error
        except RuntimeError as error:
            if _LOADER_DIED in str(error):
                raise DiskTrouble(f"a process that reads the data was lost: {error}") from error
            raise
        yield batch


def normalizer(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Prepare:
    """(pixels / 255 - mean) / std per channel, on uint8 images (B, C, H, W), as one product and one sum."""
    deviation = torch.tensor(std, dtype=torch.float64)
    scale = (1 / (255 * deviation)).float().view(-1, 1, 1).to(device)
    shift = (-torch.tensor(mean, dtype=torch.float64) / deviation).float().view(-1, 1, 1).to(device)
    return lambda pixels: pixels.float().mul_(scale).add_(shift)


def augmented(prepare: Prepare, generator: torch.Generator, padding: int = 4) -> Prepare:
    """`prepare`, then a random crop of the zero-padded image and a random horizontal flip.

    The draws are made on the CPU, where `generator` has to be, so that they are the same on every device.
    """

    def crop_and_flip(pixels: Tensor) -> Tensor:
        images = prepare(pixels)  # (B, C, H, W)
        count, _, height, width = images.shape
        top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
        flip = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.arange(width)
        rows = (top + torch.arange(height)).to(images.device)  # (B, H)
        columns = (left + torch.where(flip, columns.flip(0), columns)).to(images.device)  # (B, W)
        padded = torch.nn.functional.pad(images, [padding] * 4)
        picked = torch.arange(count, device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return crop_and_flip
