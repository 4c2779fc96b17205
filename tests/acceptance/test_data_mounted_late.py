"""A worker whose data folder is not mounted yet, as after a reboot without the network disk."""

import struct

import numpy as np
import pytest

from service.config import settings
from service.datasets.layouts import LAYOUTS
from tests.acceptance.lab import FAST, JOB, Lab, running_worker
from tests.waiting import until

MNIST = {
    "dataset": "mnist",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "optimizer": "adam",
    "budget": {"steps": 2},
    "batch_size": 8,
    "max_failures": 1,
}
RECORDS = 5100
"""Enough to split off the validation part of MNIST."""


@pytest.fixture
def disk(tmp_path):
    """A disk with noise in MNIST's format."""
    folder = tmp_path / "disk" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for images, labels in LAYOUTS["mnist"][0].parts.values():
        pixels = random.integers(0, 256, (RECORDS, 28, 28), dtype=np.uint8)
        (folder / images).write_bytes(struct.pack(">4i", 2051, *pixels.shape) + pixels.tobytes())
        (folder / labels).write_bytes(
            struct.pack(">2i", 2049, RECORDS) + bytes(random.integers(0, 10, RECORDS).tolist())
        )
    return folder.parent


@pytest.fixture
def lab(api, monkeypatch, disk):
    """An API with the data."""
    monkeypatch.setenv("KOTRAIN_DATA_DIR", str(disk))
    settings.cache_clear()
    yield Lab(api)
    monkeypatch.undo()
    settings.cache_clear()


def test_jobs_wait_for_the_data_without_a_failure_and_others_run(lab, disk, tmp_path):
    folder = tmp_path / "not-mounted"
    with running_worker(FAST | {"KOTRAIN_DATA_DIR": str(folder)}):
        waiting = lab.submit(MNIST, priority=5)
        until(lambda: "cannot train it" in (lab.show(waiting)["message"] or ""))
        assert lab.ended(lab.submit(JOB))["status"] == "succeeded"
        job = lab.show(waiting)
        assert (job["status"], job["failures"]) in {("queued", 0), ("running", 0)}
        assert "data set 'mnist' is not in the data folder: run `kotrain data fetch mnist`" in (
            lab.api.get(f"/v1/jobs/{waiting}/history").text
        )
        folder.symlink_to(disk)
        job = lab.ended(waiting)
    assert (job["status"], job["failures"], job["message"]) == ("succeeded", 0, None)
    assert job["attempt"] > 1
