"""Sources of batches: their interface, tensors in memory, and preparations of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and labels (B,), both on the run's device."""
Prepare = Callable[[Tensor], Tensor]
"""Converts the stored inputs of a batch to the inputs of a model."""


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
