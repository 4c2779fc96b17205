"""What the loop trains on. It asks a task for batches, a loss and metrics, and knows nothing else about the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workers.training.sources import Batch, Source


class Task(Protocol):
    """A problem to train on: its batches, the loss of a model on one, and which way its metrics are better."""

    records: int
    """Training records of an epoch."""
    steps_per_epoch: int
    data_hash: str
    selects: str
    """The validation metric that decides which step was best."""
    higher_is_better: Mapping[str, bool]

    def train_batches(self) -> Iterator[Any]:
        """The next epoch's batches, in a new order; after `load_state_dict`, first what was left of its epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands between two batches, with all that its random draws depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand there again."""
        ...

    def validation_batches(self) -> Iterator[Any]:
        """The validation records, always in the same order."""
        ...

    def test_batches(self) -> Iterator[Any]:
        """The test records, always in the same order; never asked for where the test set must not be read."""
        ...

    def size(self, batch: Any) -> int:
        """Records in a batch."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Mean loss over the batch, a scalar, and what the metrics are computed from."""
        ...

    def metrics(self, output: Any, batch: Any) -> dict[str, Tensor]:
        """Sums over the batch's records, scalars, by name; the loss is not among them."""
        ...


class Classification:
    """Cross-entropy on labelled records.

    Args:
        train, validation, test: where the records come from; test is None for a run that must not see it.
        batch_size: records of a training step; the last one of an epoch may be short.
        evaluation_size: records of a batch when evaluating.
        seed: of the data order: one generator, a new permutation for each epoch.
        data_hash: SHA-256 of the training data.
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
    ) -> None:
        self._train, self._validation, self._test = train, validation, test
        self._batch_size, self._evaluation_size = batch_size, evaluation_size
        self._order = torch.Generator().manual_seed(seed)
        self._epoch_from = self._order.get_state()  # what the order of the current epoch was drawn from
        self._given = 0  # batches of the current epoch
        self.records = len(train)
        self.steps_per_epoch = -(-len(train) // batch_size)
        self.data_hash = data_hash

    def train_batches(self) -> Iterator[Batch]:
        """The next epoch's batches, in a new order; after `load_state_dict`, first what was left of its epoch."""
        self._epoch_from = self._order.get_state()
        order = torch.randperm(len(self._train), generator=self._order)
        for batch in self._train.batches(self._batch_size, order[self._given * self._batch_size :]):
            self._given += 1
            yield batch
        self._given = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands between two batches, with all that its random draws depend on."""
        drawn = self._train.generator
        return {
            "order": self._epoch_from,
            "given": self._given,
            "preparation": None if drawn is None else drawn.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand there again."""
        self._order.set_state(state["order"])
        self._given = state["given"]
        if self._train.generator is not None:
            self._train.generator.set_state(state["preparation"])

    def validation_batches(self) -> Iterator[Batch]:
        """The validation records, always in the same order."""
        return self._validation.batches(self._evaluation_size)

    def test_batches(self) -> Iterator[Batch]:
        """The test records, always in the same order."""
        assert self._test is not None, "a run with evaluate_test=False asked for the test set"
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
        """Number of records whose largest logit is their label's; a count, so that shares of many batches are exact."""
        return {"accuracy": (output.argmax(1) == batch[1]).sum()}
