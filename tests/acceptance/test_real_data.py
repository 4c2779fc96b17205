"""The whole service on real data: Snips with a text CNN, CIFAR-10 with a ResNet-18, and their comparison."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import settings
from tests.acceptance.lab import Lab, RunningWorker, running_worker
from tests.real_data import read, real

SNIPS = {
    "dataset": {"name": "snips", "params": {"limit": 2000}},
    "model": {"name": "textcnn", "params": {"embedding": 32, "channels": 16}},
    "budget": {"epochs": 2},
}
CIFAR10 = {
    "dataset": {"name": "cifar10", "params": {"limit": 128}},
    "model": "resnet18",
    "batch_size": 16,
    "budget": {"steps": 2},
    "evaluate_test": False,
}
ADAM = {"name": "adam", "params": {"lr": 1e-3}}
KO = {"name": "ko", "params": {"base": "adam", "lr": 1e-3, "bounded": True}}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snips, and the first images of CIFAR-10: of all 10,000, validation alone takes half a minute."""
    folder = tmp_path_factory.mktemp("data")
    snips, cifar10 = real("snips"), real("cifar10")
    (folder / snips.layout.folder).symlink_to(snips.root.resolve())
    parts: dict[str, Any] = {}
    for part in ("train", "test"):
        images = read("cifar10", cifar10, part)
        parts |= {f"x_{part}": images.pixels[:1000].transpose(0, 2, 3, 1), f"y_{part}": images.labels[:1000]}
    (folder / "cifar10").mkdir()
    np.savez(folder / "cifar10" / "cifar10.npz", **parts)
    return folder


@pytest.fixture(scope="module")
def worker(schema: None, data_folder: Path) -> Iterator[RunningWorker]:
    """A worker with the real files, which this process's API has, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATA_DIR", str(data_folder))
        settings.cache_clear()
        with running_worker() as worker:
            yield worker
    settings.cache_clear()


@pytest.fixture
def lab(api, worker):
    """The API, with a worker that takes jobs."""
    return Lab(api)


@pytest.mark.parametrize(("job", "metric", "seeds"), [(SNIPS, "test_accuracy", 3), (CIFAR10, "val_accuracy", 1)])
def test_trains_and_compares(lab, job, metric, seeds):
    ids = [lab.submit(job, optimizer=optimizer, seed=seed) for seed in range(seeds) for optimizer in (ADAM, KO)]
    for job_id in ids:
        ended = lab.ended(job_id)
        assert ended["status"] == "succeeded", ended["message"]
        assert ended["environment"]["data_hash"]
    dataset, model = ended["spec"]["dataset"]["name"], ended["spec"]["model"]["name"]
    answer = lab.api.get("/v1/compare", params={"dataset": dataset, "model": model, "metric": metric}).json()
    assert {group["label"]: group["n"] for group in answer["groups"]} == {"adam": seeds, "ko bounded (adam)": seeds}
    assert all(0 < group["mean"] <= 1 for group in answer["groups"])
    if dataset == "snips":
        assert min(group["mean"] for group in answer["groups"]) > 0.5  # seven intents: guessing gives 0.14
    else:
        assert "test needs at least 3" in answer["verdict"]["text"]  # also if both results are equal


def test_missing_files_are_refused_with_the_fetch_command(lab, data_folder):
    job = SNIPS | {"dataset": "fashion_mnist", "model": "cnn", "optimizer": "adam"}
    assert not Path(data_folder, "fashion_mnist").exists()
    response = lab.api.post("/v1/jobs", json=job)
    assert response.status_code == 422
    assert "kotrain data fetch fashion_mnist" in response.json()["errors"][0]["detail"]
