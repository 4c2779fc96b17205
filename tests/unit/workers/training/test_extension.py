"""The diffs in CONTRIBUTING.md apply, and the model, optimizer, schedule and data set that they add can be trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.datasets.layouts import LAYOUTS

ROOT = Path(__file__).parents[4]
DIFFS = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
RECORDS = 80
OPTIMIZERS = ["adamax", {"name": "ko", "params": {"base": "adamax", "gamma": 0.1}}]
PROGRAM = """
import json, sys
from pathlib import Path

from service.datasets.layouts import train_records
from service.specs.training import TrainSpec
from workers.training.fetch import SOURCES
from workers.training.loop import train

data_dir, optimizers = Path(sys.argv[1]), json.loads(sys.argv[2])
parts = {"dataset": "kmnist", "model": "logistic", "schedule": "quadratic", "budget": {"epochs": 3}, "device": "cpu"}
runs = []
for optimizer in optimizers:
    spec = TrainSpec.model_validate(parts | {"optimizer": optimizer, "batch_size": 12, "log_every_steps": 1})
    reports = []
    summary = train(spec, lambda step, metrics: reports.append(metrics), lambda: None, data_dir=data_dir)
    rates, losses = ([metrics[name] for metrics in reports if name in metrics] for name in ("lr", "train_loss"))
    runs.append({"spec": spec.model_dump(mode="json"), "reason": summary.reason, "rates": rates, "losses": losses})
facts = {
    "runs": runs,
    "components": sorted(TrainSpec.model_json_schema()["$defs"]),
    "records": train_records(spec.dataset, data_dir),
    "downloads": len(SOURCES["kmnist"]),
}
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with the diffs applied."""
    folder = tmp_path_factory.mktemp("extended")
    for package in ("service", "workers", "ko"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}  # not within another repository
    for diff in DIFFS:
        subprocess.run(["git", "apply", "-"], input=diff, cwd=folder, env=environment, text=True, check=True)
    return folder


@pytest.fixture
def kmnist(tmp_path: Path) -> Path:
    """A data folder with images in MNIST's format, whose first pixels encode the class."""
    draw = np.random.default_rng(0)
    (tmp_path / "kmnist").mkdir()
    for images, labels in LAYOUTS["mnist"][0].parts.values():
        classes = draw.integers(0, 10, RECORDS, dtype=np.uint8)
        pixels = np.zeros((RECORDS, 28, 28), dtype=np.uint8)
        pixels[np.arange(RECORDS), classes] = 255
        for name, array in ((images, pixels), (labels, classes)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / "kmnist" / name).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return tmp_path


def test_run_with_added_parts_learns(extended: Path, kmnist: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(kmnist), json.dumps(OPTIMIZERS)],
        cwd=extended,
        env=os.environ | {"PYTHONPATH": str(extended)},
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(result.stdout)
    assert {"Logistic", "Adamax", "KoAdamaxParams", "Quadratic", "Kmnist"} <= set(facts["components"])
    assert (facts["records"], facts["downloads"]) == (RECORDS - RECORDS // 10, 4)
    assert [run["spec"]["optimizer"]["name"] for run in facts["runs"]] == ["adamax", "ko"]
    for run in facts["runs"]:
        assert run["reason"] == "completed"
        assert run["rates"][0] > run["rates"][-1] > 0
        assert run["losses"][-1] < run["losses"][0]


def test_each_diff_touches_declaration_and_builder() -> None:
    paths_per_diff = [re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE) for diff in DIFFS]
    assert [[path for path in paths if path.startswith("service/specs/catalog/")] for paths in paths_per_diff] == [
        [f"service/specs/catalog/{file}.py" for file in files]
        for files in (["models"], ["optimizer_params", "optimizers"], ["schedules"], ["datasets"])
    ]
    assert [len(paths) for paths in paths_per_diff] == [2, 3, 2, 4]
