"""A job's artifacts: the list, and the download of each."""

import csv
import hashlib
import json
from pathlib import Path
from uuid import UUID

import pytest

from service.config import settings
from service.jobs import artifacts, checkpoints, outcomes
from service.metrics import write
from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage.files import store
from tests.integration.job_calls import claim, do, submit
from tests.integration.test_api import problem

WEIGHTS = bytes(range(256)) * 9000  # 2.3 MB: more than a block


@pytest.fixture(autouse=True)
def files(empty, monkeypatch, tmp_path):
    """An empty store for one test."""
    monkeypatch.setenv("KOTRAIN_FILES", str(tmp_path))
    for cached in (settings, store):
        cached.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for cached in (settings, store):
        cached.cache_clear()


def save(job_id, step, contents):
    name = checkpoints.name_of(job_id, 1, f"{step}.pt")
    store().place(name).write_bytes(contents)
    store().put(name)
    written = checkpoints.Written(step, name, len(contents), hashlib.sha256(contents).hexdigest(), 1.0)
    do(checkpoints.add, job_id, 1, [written])
    return name


@pytest.fixture
def job(api):
    """A succeeded job with two checkpoints and two curves."""
    job_id = submit()
    claimed = claim()
    points = {
        "val_loss": ([10, 20], [0.5, float("nan")], [1.0, 2.00001]),
        "odd, name": (list(range(1, 12_001)), [0.1] * 12_000, [1.5] * 12_000),
    }
    do(write.append, [(job_id, points)])
    save(job_id, 10, b"early")
    save(job_id, 20, WEIGHTS)
    summary = Summary(
        reason=Reason.COMPLETED, steps=20, epochs=1.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
        metrics={"val_loss": 0.5}, best_step=20, target=None,
    )  # fmt: skip
    do(outcomes.finish, claimed, Reason.COMPLETED, summary=summary, environment={"host": "lab"})
    return job_id


def get(api, job, name, **headers):
    response = api.get(f"/v1/jobs/{job}/artifacts/{name}", headers=headers)
    assert response.status_code in (200, 206), response.text
    assert response.headers["content-disposition"] == f'attachment; filename="job-{str(job)[-8:]}-{name}"'
    return response


def open_below(folder):
    """Files in the folder that this process has open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [target for link in links if (target := link.readlink()).is_relative_to(folder)]


class TestList:
    def test_lists_all_files_with_their_sizes(self, api, job):
        artifacts = {entry["name"]: entry for entry in api.get(f"/v1/jobs/{job}/artifacts").json()["artifacts"]}
        assert list(artifacts) == [
            "checkpoint-10.pt",
            "checkpoint-20.pt",
            "curves.csv",
            "spec.json",
            "summary.json",
            "environment.json",
        ]
        newest = artifacts["checkpoint-20.pt"]
        assert (newest["step"], newest["size_bytes"], newest["kind"]) == (20, len(WEIGHTS), "checkpoint")
        assert newest["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
        assert newest["created_at"] is not None
        for name, artifact in artifacts.items():
            body = get(api, job, name).content
            assert artifact["size_bytes"] in (None, len(body))
            assert (artifact["size_bytes"] is None) == (name == "curves.csv")

    def test_queued_job_has_its_spec(self, api):
        (artifact,) = api.get(f"/v1/jobs/{submit()}/artifacts").json()["artifacts"]
        assert artifact["name"] == "spec.json"

    def test_unknown_jobs_return_404(self, api):
        for path in ("", "/spec.json"):
            problem(api.get(f"/v1/jobs/{UUID(int=7)}/artifacts{path}"), 404)


class TestDownload:
    def test_json_documents(self, api, job):
        document = api.get(f"/v1/jobs/{job}").json()
        assert get(api, job, "spec.json").json() == document["spec"]
        assert json.loads(get(api, job, "summary.json").text)["steps"] == 20
        assert get(api, job, "environment.json").json() == {"host": "lab"}

    def test_curves_as_csv(self, api, job):
        rows = list(csv.reader(get(api, job, "curves.csv").text.splitlines()))
        assert rows[0] == ["name", "step", "value", "wall_seconds"]
        assert rows[1] == ["odd, name", "1", "0.1", "1.5"]
        assert rows[-2:] == [["val_loss", "10", "0.5", "1.0"], ["val_loss", "20", "nan", "2.0"]]
        assert len(rows) == 1 + 12_000 + 2

    def test_checkpoint(self, api, job):
        response = get(api, job, "checkpoint-20.pt")
        assert response.content == WEIGHTS
        assert response.headers["content-length"] == str(len(WEIGHTS))
        assert response.headers["etag"].strip('"') == hashlib.sha256(WEIGHTS).hexdigest()

    @pytest.mark.parametrize(
        ("requested", "first", "last"),
        [
            ("bytes=5-9", 5, 9),
            ("bytes=2000000-", 2_000_000, len(WEIGHTS) - 1),
            ("bytes=-3", len(WEIGHTS) - 3, len(WEIGHTS) - 1),
            ("bytes=7-99999999", 7, len(WEIGHTS) - 1),
        ],
    )
    def test_range_of_a_checkpoint(self, api, job, requested, first, last):
        response = get(api, job, "checkpoint-20.pt", Range=requested)
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes {first}-{last}/{len(WEIGHTS)}"
        assert response.content == WEIGHTS[first : last + 1]

    @pytest.mark.parametrize(
        "requested", ["bytes=9-5", "bytes=-0", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=99999999-", "bytes=0-"]
    )
    def test_invalid_range_returns_the_whole_file(self, api, job, requested):
        response = get(api, job, "checkpoint-20.pt", Range=requested)
        assert (response.status_code, response.content) == (200, WEIGHTS)

    def test_disconnect_before_the_first_block_leaves_no_open_file(self, job, files):
        before = open_below(files)
        download = do(artifacts.download, job, "checkpoint-20.pt")
        assert open_below(files) == before
        assert b"".join(download.blocks) == WEIGHTS
        assert open_below(files) == before

    def test_damaged_checkpoint_returns_409_and_missing_one_503(self, api, job, files):
        file = files / checkpoints.name_of(job, 1, "20.pt")
        file.write_bytes(b"short")
        document = problem(api.get(f"/v1/jobs/{job}/artifacts/checkpoint-20.pt"), 409)
        assert "has 5 bytes, expected 2304000" in document["detail"]
        file.unlink()
        document = problem(api.get(f"/v1/jobs/{job}/artifacts/checkpoint-20.pt"), 503)
        assert document["detail"].endswith("cannot be read now: its file is missing")

    @pytest.mark.parametrize("name", ["checkpoint-11.pt", f"checkpoint-{'9' * 20}.pt", "x", "spec.json%00"])
    def test_unknown_files_return_404(self, api, job, name):
        detail = problem(api.get(f"/v1/jobs/{job}/artifacts/{name}"), 404)["detail"]
        assert "choose one of checkpoint-10.pt, checkpoint-20.pt, curves.csv" in detail
