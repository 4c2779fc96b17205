"""Sources of batches: tensors in memory, or image files read by worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from workers.training.failures import AbsentData, DataReadError, is_infrastructure_error

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and labels (B,), both on the run's device."""
Prepare = Callable[[Tensor], Tensor]
"""Converts the stored inputs of a batch to the inputs of a model."""

# ImageNet's channel means and standard deviations, as in torchvision's reference training.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_PROCESSES = 8
_LOADER_DIED = "DataLoader worker (pid"
"""Start of torch's message for a loader process that was killed or ran out of shared memory."""


class Source(Protocol):
    """Records that are read in batches."""

    generator: torch.Generator | None
    """Source of randomness of the preparation of batches; None if it is not random."""

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """The records with the indices `order` (default: all), in batches of `size`; the last batch may be smaller."""
        ...


class TensorSource:
    """Inputs (N, ...) and labels (N,) on the device; `prepare`, which may use `generator`, is applied to each batch."""

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
    """The image files in the class folders below `root`, resized and center-cropped when they are read.

    The construction lists all files, which takes minutes for a million files on a network disk.

    Raises:
        AbsentData: no images, for example because the disk is not mounted.
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
    """An `ImageFolder` that raises read errors as `DataReadError`, which survives the way to the main process."""

    def __getitem__(self, index: int) -> Any:
        try:
            return super().__getitem__(index)
        except OSError as error:
            if is_infrastructure_error(error):
                raise DataReadError(str(error)) from error
            raise


class FolderSource:
    """Image files, all or those of `rows`, decoded and transformed by worker processes."""

    def __init__(self, folder: ImageFolder, rows: Tensor | None, device: torch.device) -> None:
        self._folder = folder
        self._rows = torch.arange(len(folder)) if rows is None else rows
        self._device = device
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """See `Source`."""
        rows = self._rows if order is None else self._rows[order]
        loader = DataLoader(
            Subset(self._folder, rows.tolist()),
            batch_size=size,
            num_workers=min(_MAX_PROCESSES, len(os.sched_getaffinity(0))),
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # so that the loader does not advance the global one
        )
        for inputs, labels in _batches_of(loader):
            yield inputs.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def _batches_of(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of a loader. Raises DataReadError if one of its processes dies, which torch reports in many ways."""
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not handler:
        # Torch's handler raises wherever the main thread is. Without it, `next` reports a dead process, within 5 s.
        signal.signal(signal.SIGCHLD, handler)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (EOFError, ConnectionError) as error:
            raise DataReadError("a process that reads the data was lost") from error
        except RuntimeError as error:
            if _LOADER_DIED in str(error):
                raise DataReadError(f"a process that reads the data was lost: {error}") from error
            raise
        yield batch


def normalizer(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Prepare:
    """(pixels / 255 - mean) / std per channel, on uint8 images (B, C, H, W), as one multiplication and one addition."""
    deviation = torch.tensor(std, dtype=torch.float64)
    scale = (1 / (255 * deviation)).float().view(-1, 1, 1).to(device)
    shift = (-torch.tensor(mean, dtype=torch.float64) / deviation).float().view(-1, 1, 1).to(device)
    return lambda pixels: pixels.float().mul_(scale).add_(shift)


def augmented(prepare: Prepare, generator: torch.Generator, padding: int = 4) -> Prepare:
    """`prepare`, then a random crop of the zero-padded image and a random horizontal flip.

    Random numbers are drawn on the CPU, on which `generator` must be, so that they are equal on every device.
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
