"""Fixtures of the training tests: a builder of small specs, and data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.specs.training import TrainSpec
from tests.one_thread import one_thread  # noqa: F401 (an autouse fixture)
from tests.unit.workers.training.small import write_data


@pytest.fixture(scope="session")
def spec() -> Callable[..., TrainSpec]:
    """Build the spec of a small run on the golden digits; keywords replace its fields."""

    def build(**fields: Any) -> TrainSpec:
        body: dict[str, Any] = {
            "dataset": {"name": "digits", "params": {"split": "golden"}},
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "optimizer": "adam",
            "budget": {"epochs": 1},
            "device": "cpu",
        }
        return TrainSpec.model_validate(body | fields)

    return build


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets of `TASKS`."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder
