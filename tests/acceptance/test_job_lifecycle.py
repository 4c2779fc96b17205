"""The life of a job on a real worker, and faults of its process, the database and the broker."""

import os
import signal
import time
from pathlib import Path

import pytest

from service.config import settings
from service.jobs import queue
from tests.acceptance.lab import LONG, Lab, alive, children, running_worker
from tests.waiting import until


@pytest.fixture(scope="module")
def worker(schema):
    """One worker for these tests, in a new interpreter, because they inspect its memory and environment."""
    with running_worker(forked=False) as worker:
        yield worker


@pytest.fixture
def lab(api, worker):
    """The API, with a worker that takes jobs."""
    return Lab(api)


def values_by_step(metrics: dict, name: str) -> list[tuple[int, float]]:
    return list(zip(metrics[name]["steps"], metrics[name]["values"], strict=True))


class TestJob:
    def test_job_runs_from_submission_to_result(self, lab):
        job = lab.ended(lab.submit())
        assert (job["status"], job["reason"], job["message"]) == ("succeeded", "completed", None)
        assert job["progress"] == {"step": 26, "total_steps": 26}
        assert job["summary"]["steps"] == 26
        assert 0 < job["summary"]["metrics"]["test_accuracy"] <= 1
        assert {"torch", "python", "data_hash", "host", "device_kind", "kotrain"} <= job["environment"].keys()
        curves = lab.metrics(job["id"])
        assert {"train_loss", "val_accuracy", "test_accuracy", "weight_correlation", "lr"} <= curves.keys()
        assert curves["test_accuracy"]["steps"] == [26]
        assert curves["val_accuracy"]["steps"] == list(range(2, 27, 2))

    def test_equal_specs_give_equal_metrics(self, lab):
        first, second = (lab.metrics(lab.ended(lab.submit(optimizer="ko"))["id"]) for _ in range(2))
        for name in ("train_loss", "val_loss", "test_loss", "update_norm"):
            assert values_by_step(first, name) == values_by_step(second, name)

    def test_diverged_run_has_a_summary(self, lab):
        sgd = {"name": "sgd", "params": {"lr": 100}}
        job = lab.ended(lab.submit(LONG, optimizer=sgd, model={"name": "mlp", "params": {"init_scale": 50}}))
        assert (job["status"], job["reason"]) == ("failed", "diverged")
        assert job["summary"]["reason"] == "diverged"

    def test_cancel_stops_the_job_and_keeps_its_points(self, lab, worker):
        job_id = lab.submit(LONG)
        lab.wait_until_training(job_id)
        assert lab.api.post(f"/v1/jobs/{job_id}/cancel").json()["cancel_requested"]
        job = lab.ended(job_id)
        assert (job["status"], job["reason"]) == ("cancelled", "cancelled")
        assert lab.metrics(job_id)["train_loss"]["steps"]
        until(lambda: not worker.training())

    def test_cancel_kills_an_unresponsive_child(self, lab, worker):
        job_id = lab.submit(LONG)
        lab.wait_until_training(job_id)
        child = worker.child()
        os.kill(child, signal.SIGSTOP)
        lab.api.post(f"/v1/jobs/{job_id}/cancel")
        assert lab.ended(job_id)["status"] == "cancelled"
        assert not alive(child)

    def test_time_limit_fails_the_job(self, lab):
        job = lab.ended(lab.submit(LONG, time_limit_seconds=0.5))
        assert (job["status"], job["reason"]) == ("failed", "timed_out")
        assert "0.5 s" in job["message"]
        assert job["summary"]["reason"] == "timed_out"

    def test_out_of_memory_fails_the_job_and_not_the_worker(self, lab, worker):
        job = lab.ended(lab.submit(model={"name": "mlp", "params": {"hidden": [40_000, 40_000]}}))
        assert (job["status"], job["reason"]) == ("failed", "out_of_memory")
        assert lab.ended(lab.submit())["status"] == "succeeded"
        assert worker.process.poll() is None

    def test_job_of_a_killed_child_is_retried_without_duplicate_points(self, lab, worker):
        job_id = lab.submit(budget={"steps": 2000})
        lab.wait_until_training(job_id)
        child = worker.child()
        os.kill(child, signal.SIGKILL)
        job = lab.ended(job_id)
        assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 2, 1)
        assert ("queued", "child_lost") in lab.events(job_id)
        for curve in lab.metrics(job_id).values():
            assert curve["steps"] == sorted(set(curve["steps"]))

    def test_killed_forkserver_is_restarted_without_secrets(self, lab, worker):
        job_id = lab.submit(LONG)  # which does not end before its server is found
        lab.wait_until_training(job_id)
        child = worker.child()
        (server,) = [pid for pid in children(worker.pid) if children(pid)]
        os.kill(server, signal.SIGKILL)
        until(lambda: not alive(child))
        (restarted,) = until(lambda: [pid for pid in children(worker.pid) if pid != server and children(pid)])
        assert b"KOTRAIN_DATABASE_URL" not in Path(f"/proc/{restarted}/environ").read_bytes()
        until(lambda: lab.show(job_id)["attempt"] == 2)
        lab.api.post(f"/v1/jobs/{job_id}/cancel")
        assert lab.ended(job_id)["status"] == "cancelled"
        assert lab.ended(lab.submit())["status"] == "succeeded"

    def test_job_fails_after_max_failures_kills(self, lab, worker):
        job_id = lab.submit(LONG, max_failures=2)
        for _ in range(2):
            (child,) = until(worker.training)
            os.kill(child, signal.SIGKILL)
            until(lambda child=child: not alive(child))
        job = lab.ended(job_id)
        assert (job["status"], job["reason"], job["failures"]) == ("failed", "child_lost", 2)
        assert "signal 9" in job["message"]

    def test_children_have_no_secrets(self, lab, worker):
        job_id = lab.submit(LONG)
        lab.wait_until_training(job_id)
        (server,) = [pid for pid in children(worker.pid) if children(pid)]
        for pid in (server, *worker.training()):
            environment = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            for secret in (settings().database_url, settings().broker_url):
                assert secret.encode() not in environment
            assert b"KOTRAIN_DATABASE_URL" not in environment
        lab.api.post(f"/v1/jobs/{job_id}/cancel")
        lab.ended(job_id)

    def test_lost_wake_up_message_does_not_lose_the_job(self, lab):
        job_id = lab.submit()
        queue.celery().control.purge()
        assert lab.ended(job_id)["status"] == "succeeded"

    def test_extra_wake_up_messages_have_no_effect(self, lab):
        job_id = lab.submit()
        for _ in range(20):
            queue.wake()
        assert lab.ended(job_id)["attempt"] == 1

    def test_many_short_jobs_succeed_at_the_first_attempt(self, lab):
        ids = [lab.submit(seed=seed, budget={"steps": 5}) for seed in range(30)]
        ended = [lab.ended(job_id) for job_id in ids]
        assert {(job["status"], job["attempt"]) for job in ended} == {("succeeded", 1)}


class TestOutage:
    def test_job_survives_a_database_outage(self, lab, servers):
        job_id = lab.submit(budget={"steps": 1500})
        lab.wait_until_training(job_id)
        servers.postgres.stop()
        time.sleep(2)  # long enough for a heartbeat, and perhaps the job's end, to fail
        servers.postgres.start()
        job = lab.ended(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 1)
        curves = lab.metrics(job_id)
        assert curves["train_loss"]["steps"] == list(range(10, 1501, 10))
        for curve in curves.values():
            assert curve["steps"] == sorted(set(curve["steps"]))

    def test_jobs_run_after_the_broker_returns_empty(self, lab, servers):
        servers.valkey.stop()
        waiting = lab.submit()
        servers.valkey.start()
        assert lab.ended(waiting)["status"] == "succeeded"
        assert lab.ended(lab.submit())["status"] == "succeeded"
