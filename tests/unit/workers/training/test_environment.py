"""The recorded environment of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from service.specs.catalog import uploaded
from service.specs.catalog.declaration import Declaration
from service.specs.training import TrainSpec
from tests import plugin_packages
from workers.training import environment

MODULE = "from torch.optim import SGD\n\nclass Mine(SGD):\n    def __init__(self, params, lr: float = 0.1): ...\n"


@pytest.mark.parametrize(
    ("optimizer", "plugin"),
    [
        ("e_lab/mine", "lab 1.2"),
        ({"name": "ko", "params": {"base": "e_lab/mine"}}, "lab 1.2"),
        ({"name": "ko", "params": {"base": "adam"}}, None),
    ],
)
def test_names_the_distribution_of_a_plugin(
    optimizer: object, plugin: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        plugin_packages.install(tmp_path, "mine = e_lab.mine:Mine", {"e_lab/__init__.py": "", "e_lab/mine.py": MODULE})
        body = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}, "optimizer": optimizer}
        recorded = environment.of_run(TrainSpec.model_validate(body), torch.device("cpu"), "0123")
    plugin_packages.restart()
    assert recorded.get("plugin") == plugin


def test_uploaded_code_with_the_name_of_a_plugin_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "e_lab/mine@00000000"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        plugin_packages.install(tmp_path, "mine = e_lab.mine:Mine", {"e_lab/__init__.py": "", "e_lab/mine.py": MODULE})
        uploaded.remember(Declaration(name=name, class_name="Mine", title="Mine"))
        body = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}, "optimizer": name}
        recorded = environment.of_run(TrainSpec.model_validate(body), torch.device("cpu"), "0123")
    plugin_packages.restart()
    assert "plugin" not in recorded
