"""Uploaded data sets in jobs and comparisons, and the conditions of their removal."""

import shutil
import threading

import pytest
from sqlalchemy import select, text

from service.datasets import layouts, locks
from service.jobs import submission
from service.jobs.requests import JobRequest
from service.storage import database
from service.storage.tables import User
from tests.unit.service.datasets.uploads.files import folders
from tests.waiting import until

JOB = {"dataset": "images/flowers", "model": "mlp", "optimizer": "adam", "budget": {"steps": 5}, "batch_size": 4}
COMPARISON = {
    "tasks": [{name: JOB[name] for name in ("dataset", "model", "budget", "batch_size")}],
    "optimizers": ["adam", "sgd"],
    "seeds": 2,
}


@pytest.fixture
def flowers(send):
    assert send().status_code == 201


def submit(api, **fields):
    return api.post("/v1/jobs", json=JOB | fields)


def remove(api, **options):
    return api.delete("/v1/datasets/images/flowers", **options)


class TestSubmit:
    def test_job_on_an_upload_is_accepted(self, api, flowers):
        job = submit(api, batch_size=8).json()
        assert job["spec"]["dataset"] == {"name": "images/flowers", "params": {"split_seed": 0, "limit": None}}

    def test_batch_larger_than_the_training_part_is_refused(self, api, flowers):
        answer = submit(api, batch_size=9)  # one of nine records is for validation
        assert answer.status_code == 422
        assert "9 exceeds the 8 training records of 'images/flowers'" in answer.json()["detail"]

    def test_single_record_in_the_last_batch_is_refused_if_the_run_reaches_it(self, api, flowers):
        (error,) = submit(api, model="resnet18", batch_size=7).json()["errors"]
        assert (error["pointer"], error["detail"].split("choose ")[1]) == ("/batch_size", "6 or 8")
        tasks = [COMPARISON["tasks"][0] | {"model": "resnet18", "batch_size": 7}]
        (error,) = api.post("/v1/comparisons", json=COMPARISON | {"tasks": tasks}).json()["errors"]
        assert error["pointer"] == "/tasks/0/batch_size"
        assert submit(api, model="resnet18", batch_size=7, budget={"steps": 1}).status_code == 202

    def test_error_lists_the_uploaded_data_sets(self, api, flowers):
        answer = submit(api, dataset="images/flowrs")
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["pointer"]) == (422, "/dataset")
        assert error["detail"] == (
            "unknown data set 'images/flowrs' (did you mean 'images/flowers'?); uploaded data sets: images/flowers"
        )

    def test_model_for_another_kind_of_data_is_refused(self, api):
        (error,) = submit(api, dataset="tables/iris", model="cnn").json()["errors"]
        assert error["detail"] == "model 'cnn' reads images, but data set 'tables/iris' has tables"
        (error,) = submit(api, dataset="texts/reviews").json()["errors"]
        assert error["detail"] == "model 'mlp' reads images and tables, but data set 'texts/reviews' has texts"


class TestComparison:
    def test_diverged_score_follows_from_the_number_of_classes(self, api, flowers):
        answer = api.post("/v1/comparisons", json=COMPARISON)
        assert answer.status_code == 202, answer.text
        with database.transaction() as session:
            plan = session.scalar(text("SELECT plan FROM comparisons"))
        assert plan["tasks"][0]["diverged_score"] == pytest.approx(1 / 3)
        (error,) = api.post("/v1/comparisons", json=COMPARISON | {"diverged_score": 0.5}).json()["errors"]
        assert error["pointer"] == "/diverged_score"

    def test_unknown_data_set_is_refused(self, api):
        (error,) = api.post("/v1/comparisons", json=COMPARISON).json()["errors"]
        assert error["pointer"] == "/tasks/0/dataset"
        assert "unknown data set 'images/flowers'" in error["detail"]

    def test_compare_and_leaderboard_accept_the_name(self, api, flowers):
        query = {"dataset": "images/flowers", "model": "mlp"}
        assert api.get("/v1/compare", params=query).json()["groups"] == []
        assert api.get("/v1/compare", params=query | {"dataset": "images/../x"}).status_code == 422
        assert api.get("/v1/leaderboard", params=query).status_code == 200


class TestRemove:
    def test_removes_all_files_and_frees_the_name(self, api, flowers, send, data_dir):
        before = layouts.stamp("images/flowers", data_dir)
        assert remove(api).status_code == 204
        assert [path for path in (data_dir / "own").rglob("*") if path.is_file()] == []
        assert remove(api).status_code == 404
        assert send().status_code == 201
        assert layouts.stamp("images/flowers", data_dir) not in (before, None)

    def test_holds_no_lock_while_deleting(self, api, flowers, monkeypatch):
        """Deleting a million images takes minutes, during which submissions would wait for the lock."""
        locks_held = []

        def delete(folder, **options):
            with database.transaction() as session:
                locks_held.append(session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")))
            delete_really(folder, **options)

        delete_really = shutil.rmtree
        monkeypatch.setattr(shutil, "rmtree", delete)
        assert remove(api).status_code == 204
        assert locks_held == [0]

    def test_only_the_owner_and_admins_may_remove(self, api, flowers, as_user):
        answer = remove(api, headers=as_user("bob"))
        assert (answer.status_code, answer.json()["detail"]) == (403, "data set 'images/flowers' belongs to ada")
        assert remove(api, headers=as_user("eve", admin=True)).status_code == 204

    def test_unfinished_jobs_prevent_removal(self, api, flowers):
        ids = [submit(api, seed=seed).json()["id"] for seed in range(2)]
        answer = remove(api)
        assert answer.status_code == 409
        assert answer.json()["detail"] == (
            f"data set 'images/flowers' is used by 2 unfinished jobs, such as {ids[0]}; wait or cancel them"
        )
        for job_id in ids:
            api.post(f"/v1/jobs/{job_id}/cancel")
        assert remove(api).status_code == 204
        retried = api.post(f"/v1/jobs/{ids[0]}/retry")
        assert (retried.status_code, retried.json()["errors"][0]["pointer"]) == (422, "/dataset")

    def test_running_comparison_prevents_removal(self, api, flowers):
        comparison = api.post("/v1/comparisons", json=COMPARISON).json()["id"]
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET status = 'succeeded', reason = 'completed'"))
        answer = remove(api)
        assert (answer.status_code, comparison in answer.json()["detail"]) == (409, True)
        api.post(f"/v1/comparisons/{comparison}/cancel")
        assert remove(api).status_code == 204

    def test_waits_for_a_concurrent_submission(self, api, flowers):
        """The submission took the lock first, so the job exists before the files can be removed."""
        answers = []
        with database.transaction() as session:
            user = session.scalar(select(User).where(User.name == "ada"))
            submission.submit(session, user, JobRequest.model_validate(JOB))
            removing = threading.Thread(target=lambda: answers.append(remove(api)))
            removing.start()
            until(_is_lock_awaited)
            assert answers == []
        removing.join()
        assert answers[0].status_code == 409

    def test_submission_waits_for_a_concurrent_removal(self, api, flowers, data_dir):
        answers = []
        with database.transaction() as session:
            locks.hold_dataset(session, "images/flowers", alone=True)
            submitting = threading.Thread(target=lambda: answers.append(submit(api)))
            submitting.start()
            until(_is_lock_awaited)
            layouts.own_folder("images/flowers", data_dir).rename(data_dir / "gone")
        submitting.join()
        assert answers[0].status_code == 422


def _is_lock_awaited() -> bool:
    with database.transaction() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))


def test_equal_zips_have_equal_hashes(send, tmp_path, data_dir):
    content = folders(tmp_path / "again.zip").read_bytes()
    hashes = []
    for name in ("one", "two"):
        assert send(name, content).status_code == 201
        hashes.append(layouts.describe(f"images/{name}", data_dir).content_sha256)
    assert hashes[0] == hashes[1]
