"""Workers, jobs and checkpoints that are stuck or gone: the doctor names them, and finds no error in sound ones."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, insert, select, text, update
from typer.testing import CliRunner

from service.accounts import api_keys
from service.commands import app
from service.jobs import claims, submission
from service.jobs.requests import JobRequest
from service.operations.doctor import checks, work
from service.operations.embedded.servers import Embedded
from service.operations.run_file import Running
from service.specs.training import ENGINE_VERSION
from service.storage import database
from service.storage.tables import Checkpoint, Job, User, Worker
from tests import forked
from tests.integration.job_calls import wait_until_leases_count
from tests.integration.doctor.examination import CPU, GPU, REQUEST, is_well, look, says


def worker(name="w", *, seconds_ago=0.0, **fields):
    row = {"host": name, "slots": 2, "devices": [CPU], "torch": "2.14.1", **fields}
    silent = func.clock_timestamp() - timedelta(seconds=seconds_ago)
    with database.transaction() as session:
        session.execute(insert(Worker).values(id=name, heartbeat_at=silent, **row))


@pytest.fixture
def alive(empty):
    """A worker with a sign of life that lasts for a test; others can be lost."""
    wait_until_leases_count()
    worker(seconds_ago=-3600)


@pytest.fixture
def submit(empty):
    api_keys.create("ada")

    def submit(*, waits=0.0, **fields):
        with database.transaction() as session:
            ada = session.scalars(select(User)).one()
            (job_id,) = submission.submit_many(
                session, ada, [JobRequest.model_validate(REQUEST | fields)], is_direct=True
            )
            since = Job.available_at - timedelta(seconds=waits)
            session.execute(update(Job).where(Job.id == job_id).values(available_at=since))
        return job_id

    return submit


class TestWorkers:
    def test_none(self, empty):
        assert says("workers", "error", "no worker is running")

    def test_one_that_lives(self, alive):
        assert look("workers") == [("ok", "w: 0 of 2 slots busy, no GPU, torch 2.14.1")]

    def test_one_that_was_lost(self, alive):
        worker("gpu7", seconds_ago=7200)
        assert says("workers", "warning", "gpu7 disappeared 2 h ago")

    def test_one_that_was_lost_and_started_again(self, alive):
        worker("before", host="w", seconds_ago=7200)
        assert is_well("workers")

    def test_two_versions_of_torch(self, alive):
        worker("other", seconds_ago=-3600, torch="2.11.0")
        assert says("workers", "warning", "torch (2.11.0, 2.14.1)")

    def test_two_on_one_host(self, alive):
        worker("other", host="w", seconds_ago=-3600)
        assert says("workers", "warning", "2 workers run on w")


class TestJobs:
    def test_a_job_that_runs_without_a_sign_of_life(self, alive, submit, monkeypatch):
        monkeypatch.setattr(work, "STALE", text(work.STALE.text.replace("pg_postmaster_start_time()", "'-infinity'")))
        job_id = submit()
        with database.transaction() as session:
            claims.claim(session, "w", has_cuda=False)
            silent = Job.heartbeat_at - timedelta(minutes=5)
            session.execute(update(Job).values(heartbeat_at=silent))
        assert says("jobs", "error", "1 job runs without a heartbeat for up to 5", str(job_id))

    def test_a_job_that_was_forgotten(self, alive, submit):
        submit(waits=600)
        assert says("jobs", "error", "queued for 10", "although w has idle slots")

    def test_a_job_that_waits_for_a_slot(self, alive, submit):
        for seed in range(2):
            submit(seed=seed)
            with database.transaction() as session:
                claims.claim(session, "w", has_cuda=False)
        submit(waits=600, seed=9)
        assert is_well("jobs")

    def test_a_job_that_waits_for_a_gpu(self, alive, submit):
        submit(waits=600, device="cuda")
        assert says("jobs", "warning", "1 job waits for a GPU")
        worker("big", seconds_ago=-3600, devices=[GPU, CPU])
        assert says("jobs", "error", "big has idle slots")

    def test_a_job_of_a_newer_engine(self, alive, submit):
        submit(waits=600)
        with database.transaction() as session:
            session.execute(update(Job).values(engine_version=ENGINE_VERSION + 1))
        assert says("jobs", "warning", f"engine {ENGINE_VERSION + 1}")

    def test_a_job_whose_data_is_not_here(self, alive, submit):
        submit(dataset="mnist", model="cnn")
        assert says("jobs", "warning", "'mnist', which is not present")


class TestCheckpoints:
    @pytest.fixture
    def checkpoint(self, alive, submit, place):
        job_id = submit()
        name = f"jobs/{job_id}/1/10.pt"
        file = place / "files" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 10)
        row = {"job_id": job_id, "attempt": 1, "step": 10, "file": name, "size_bytes": 10, "sha256": "", "seconds": 1}
        with database.transaction() as session:
            session.execute(insert(Checkpoint).values(row))
        return file

    def test_a_sound_one(self, checkpoint):
        assert look("checkpoints") == [("ok", "1, all files present")]

    def test_a_missing_file(self, checkpoint):
        checkpoint.unlink()
        assert says("checkpoints", "error", "are missing", checkpoint.name, "unfinished jobs")

    def test_a_truncated_file(self, checkpoint):
        checkpoint.write_bytes(b"x")
        assert says("checkpoints", "error", "of the wrong size")

    def test_of_a_job_that_has_ended_it_is_no_error(self, checkpoint):
        checkpoint.unlink()
        with database.transaction() as session:
            session.execute(update(Job).values(status="succeeded"))
        assert says("checkpoints", "warning", "are missing")


def test_a_check_that_fails_hides_nothing(alive, monkeypatch):
    def fail(_):
        raise RuntimeError("no such thing")

    monkeypatch.setitem(checks.CHECKS, "disk", fail)
    found = checks.examine()
    assert {one.check for one in found} == set(checks.CHECKS)
    assert [one.text for one in found if one.check == "disk"] == ["not checked: RuntimeError: no such thing"]


def test_the_command_exits_with_1_where_there_is_an_error(alive, place, monkeypatch):
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 0, said.stdout
    assert said.stdout.splitlines()[-1].startswith("0 errors, ")
    monkeypatch.setenv("KOTRAIN_SLOT", "2")
    said = CliRunner().invoke(app, ["doctor", "--json"])
    assert said.exit_code == 1
    answer = json.loads(said.stdout)
    (wrong,) = [one for one in answer["findings"] if one["level"] == "error"]
    assert (wrong["check"], answer["errors"], wrong["remedy"]) == ("settings", 1, "rename it to KOTRAIN_SLOTS")


class TestEmbedded:
    @pytest.fixture
    def own(self, home, embedded, monkeypatch):
        """The servers of a home of their own, which this process owns."""
        monkeypatch.setenv("KOTRAIN_HOME", str(home))
        with Embedded(home, fast=True) as own:
            about = Running(url="http://127.0.0.1:1", pid=os.getpid())
            (home / "running.json").write_text(about.model_dump_json())
            yield own

    def test_one_that_is_starting(self, own):
        Path(os.environ["KOTRAIN_HOME"], "running.json").unlink()
        own.valkey.stop()
        own.postgres.stop()
        assert is_well("stack")
        for check in ("api", "database", "broker"):
            assert says(check, "warning", "not checked: kotrain is still starting")

    def test_its_servers_are_found(self, own):
        assert is_well("stack")
        assert is_well("broker")
        assert says("database", "warning", "fsync")

    def test_a_stopped_database(self, own):
        own.postgres.stop()
        assert says("database", "error", "cannot connect", "last line of its log")

    def test_a_stopped_broker(self, own):
        own.valkey.stop()
        assert says("broker", "error", "cannot connect")

    def test_data_of_another_postgres(self, own):
        version = Path(os.environ["KOTRAIN_HOME"], "postgres", "data", "PG_VERSION")
        version.write_text("17\n")
        assert says("stack", "error", "PostgreSQL 17")
        version.write_text("18\n")


@pytest.mark.timeout(240)
def test_a_stack_that_runs_and_its_worker_that_hangs(home):
    quick = {"KOTRAIN_LEASE_SECONDS": "2", "KOTRAIN_BEAT_SECONDS": "0.2", "KOTRAIN_PORT": "0"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    environment |= quick | {"KOTRAIN_HOME": str(home)}

    def told():
        done = forked.run("service.commands", "doctor", "--json", env=environment)
        answer = json.loads(done.stdout)
        assert done.returncode == bool(answer["errors"])
        return [one for one in answer["findings"] if one["level"] != "ok"]

    before = told()
    assert {one["level"] for one in before} == {"warning"}, before
    assert any("no stack is running" in one["text"] for one in before)
    command = [sys.executable, "-m", "service.commands", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert "is running at" in up.stdout.readline()
            deadline = time.monotonic() + 60
            while (bad := told()) and time.monotonic() < deadline:  # the worker takes a moment to make itself known
                time.sleep(0.5)
            assert bad == []
            (hung,) = [one for one in psutil.Process(up.pid).children() if "workers" in one.cmdline()]
            hung.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # its lease
            (bad,) = [one for one in told() if one["level"] == "error"]
            assert "no worker is running" in bad["text"]
            hung.send_signal(signal.SIGCONT)
        finally:
            up.send_signal(signal.SIGTERM)
