from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from service.spec import TrainSpec


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def spec() -> Callable[..., TrainSpec]:
    """A small run on the golden digits; keywords replace parts of it."""

    def build(**parts: Any) -> TrainSpec:
        body: dict[str, Any] = {
            "dataset": {"name": "digits", "params": {"split": "golden"}},
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "optimizer": "adam",
            "budget": {"epochs": 1},
            "device": "cpu",
        }
        return TrainSpec.model_validate(body | parts)

    return build
