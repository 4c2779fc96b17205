"""The whole service on real data: Snips with a text CNN, CIFAR-10 with a ResNet-18, and their comparison."""

from pathlib import Path

import pytest

from service.config import settings
from tests.acceptance.lab import Lab, running_worker
from tests.real_data import DATA_DIR, real

SNIPS = {
    "dataset": {"name": "snips", "params": {"limit": 2000}},
    "model": {"name": "textcnn", "params": {"embedding": 32, "channels": 16}},
    "budget": {"epochs": 2},
}
CIFAR10 = {
    "dataset": {"name": "cifar10", "params": {"limit": 128}},
    "model": "resnet18",
    "budget": {"steps": 2},
    "evaluate_test": False,  # 2,000 images twice would take most of the test's time
}
ADAM = {"name": "adam", "params": {"lr": 1e-3}}
KO = {"name": "ko", "params": {"base": "adam", "lr": 1e-3, "bounded": True}}


@pytest.fixture(scope="module")
def worker(schema):
    """A worker with the real files, which this process's API has, too."""
    real("snips"), real("cifar10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATA_DIR", str(DATA_DIR))
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
        assert "test needs at least 3 seeds" in answer["verdict"]["text"]  # also if both results are equal


def test_missing_files_are_refused_with_the_fetch_command(lab):
    job = SNIPS | {"dataset": "fashion_mnist", "model": "cnn", "optimizer": "adam"}
    assert not Path(DATA_DIR, "fashion_mnist").exists()
    response = lab.api.post("/v1/jobs", json=job)
    assert response.status_code == 422
    assert "kotrain data fetch fashion_mnist" in response.json()["errors"][0]["detail"]
