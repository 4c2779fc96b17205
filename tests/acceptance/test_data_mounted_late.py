"""A worker whose data folder is not there yet, as after a reboot without the network's disk."""

import pytest

from service.config import settings
from tests.acceptance.lab import FAST, JOB, Lab, running_worker, until
from tests.real_data import DATA_DIR, real

SNIPS = {
    "dataset": {"name": "snips", "params": {"limit": 200}},
    "model": {"name": "textcnn", "params": {"embedding": 8, "channels": 4}},
    "optimizer": "adam",
    "budget": {"steps": 2},
    "max_failures": 1,
}


@pytest.fixture
def lab(api, monkeypatch):
    """An API that has the data."""
    real("snips")
    monkeypatch.setenv("KOTRAIN_DATA_DIR", str(DATA_DIR))
    settings.cache_clear()
    yield Lab(api)
    monkeypatch.undo()
    settings.cache_clear()


def test_its_jobs_wait_without_blame_and_others_go_on(lab, tmp_path):
    folder = tmp_path / "not-mounted"
    with running_worker(FAST | {"KOTRAIN_DATA_DIR": str(folder)}):
        waiting = lab.submit(SNIPS, priority=5)
        until(lambda: "cannot train it" in (lab.show(waiting)["message"] or ""))
        assert lab.ended(lab.submit(JOB))["status"] == "succeeded"
        job = lab.show(waiting)
        assert (job["status"], job["failures"]) in {("queued", 0), ("running", 0)}
        assert "data set 'snips' is not in the data folder: run `kotrain data fetch snips`" in (
            lab.api.get(f"/v1/jobs/{waiting}/history").text
        )
        folder.symlink_to(DATA_DIR)
        job = lab.ended(waiting)
    assert (job["status"], job["failures"], job["message"]) == ("succeeded", 0, None)
    assert job["attempt"] > 1
