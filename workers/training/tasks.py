"""Tasks: the interface between the training loop and the data, with batches, loss and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workers.training.sources import Batch, Source


class Task(Protocol):
    """A training problem: its batches, the loss of a model on a batch, and its metrics."""

    records: int
    """Training records per epoch."""
    steps_per_epoch: int
    data_hash: str
    selects: str
    """The validation metric that selects the best step."""
    higher_is_better: Mapping[str, bool]
    """Name of a metric -> its direction."""
    notes: Sequence[str]
    """What the user should know about the data before training, in sentences without capital and full stop."""

    def train_batches(self) -> Iterator[Any]:
        """The batches of the next epoch, in a new order; after `load_state_dict`, the rest of the restored epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position in the data between two batches, with the states of all random generators."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position returned by `state_dict`."""
        ...

    def validation_batches(self) -> Iterator[Any]:
        """The validation records, always in the same order."""
        ...

    def test_batches(self) -> Iterator[Any]:
        """The test records, always in the same order. Not called for a run that must not read the test set."""
        ...

    def size(self, batch: Any) -> int:
        """Records in a batch."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Mean loss over the batch, a scalar, and the output from which `metrics` are computed."""
        ...

    def metrics(self, output: Any, batch: Any) -> dict[str, Tensor]:
        """Sums of each metric over the records of the batch, scalars, without the loss."""
        ...


class Classification:
    """Cross-entropy on labelled records.

    Args:
        train, validation, test: sources of the records; `test` is None for a run that must not read the test set.
        batch_size: records per training step; the last batch of an epoch may be smaller.
        evaluation_size: records per batch in evaluations.
        seed: seed of the data order: one generator draws a new permutation for each epoch.
        data_hash: SHA-256 of the training data.
        notes: as in `Task`.
    """

    selects = "accuracy"
    higher_is_better: Mapping[str, bool] = {"loss": False, "accuracy": True}

    def __init__(
        self,
        train: Source,
        validation: Source,
        test: Source | None,
        *,
        batch_size: int,
        evaluation_size: int,
        seed: int,
        data_hash: str,
        notes: Sequence[str] = (),
    ) -> None:
        self._train, self._validation, self._test = train, validation, test
        self._batch_size, self._evaluation_size = batch_size, evaluation_size
        self._order = torch.Generator().manual_seed(seed)
        self._epoch_state = self._order.get_state()  # of the generator, before the order of the current epoch
        self._done = 0  # batches of the current epoch
        self.records = len(train)
        self.steps_per_epoch = -(-len(train) // batch_size)
        self.data_hash = data_hash
        self.notes = notes

    def train_batches(self) -> Iterator[Batch]:
        """The batches of the next epoch, in a new order; after `load_state_dict`, the rest of the restored epoch."""
        self._epoch_state = self._order.get_state()
        order = torch.randperm(len(self._train), generator=self._order)
        for batch in self._train.batches(self._batch_size, order[self._done * self._batch_size :]):
            self._done += 1
            yield batch
        self._done = 0

    def state_dict(self) -> dict[str, Any]:
        """The position in the data between two batches, with the states of all random generators."""
        preparation = self._train.generator
        return {
            "order": self._epoch_state,
            "given": self._done,
            "preparation": None if preparation is None else preparation.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position returned by `state_dict`."""
        self._order.set_state(state["order"])
        self._done = state["given"]
        if self._train.generator is not None:
            self._train.generator.set_state(state["preparation"])

    def validation_batches(self) -> Iterator[Batch]:
        """The validation records, always in the same order."""
        return self._validation.batches(self._evaluation_size)

    def test_batches(self) -> Iterator[Batch]:
        """The test records, always in the same order."""
        assert self._test is not None, "a run with evaluate_test=False must not read the test set"
        return self._test.batches(self._evaluation_size)

    def size(self, batch: Batch) -> int:
        """Records in a batch."""
        return len(batch[1])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy, and the logits (B, classes)."""
        inputs, labels = batch
        logits = model(inputs)
        return nn.functional.cross_entropy(logits, labels), logits

    def metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Number of records whose label has the largest logit; as counts, sums over batches are exact."""
        return {"accuracy": (output.argmax(1) == batch[1]).sum()}
