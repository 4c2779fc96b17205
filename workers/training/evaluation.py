"""Losses and metrics of a model on batches of its task, in the precision of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from workers.training.device import DTYPES, Precision
from workers.training.tasks import Task


class Evaluator:
    """Computes losses of single batches, and means over all records.

    Args:
        task: defines loss and metrics.
        model: the model.
        device: where it computes.
        precision: that of activations; other than fp32 by autocast.
        check: called after each batch of an evaluation; may raise to end it.
    """

    def __init__(
        self, task: Task, model: nn.Module, device: torch.device, precision: Precision, check: Callable[[], None]
    ) -> None:
        self._task, self._model, self._device = task, model, device
        self._precision, self._check = precision, check

    def loss(self, batch: Any) -> tuple[Tensor, Any]:
        """Mean loss over a batch, a scalar, and the output from which metrics are computed."""
        with self._autocast():
            return self._task.loss(self._model, batch)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self._precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, DTYPES[self._precision])

    @torch.inference_mode()
    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Mean loss and metrics over all records of the batches."""
        self._model.eval()
        sums: dict[str, Tensor] = {}
        records = 0
        for batch in batches:
            size = self._task.size(batch)
            loss, output = self.loss(batch)
            for name, value in {"loss": loss.double() * size, **self._task.metrics(output, batch)}.items():
                sums[name] = sums.get(name, 0) + value
            records += size
            self._check()
        self._model.train()
        return {name: float(total) / records for name, total in sums.items()}
