"""The doctor names stuck or missing workers, jobs and checkpoints, and finds no errors in sound ones."""

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
from service.home import Running
from service.jobs import claims, submission
from service.jobs.requests import JobRequest
from service.operations.doctor import checks, work
from service.operations.embedded.servers import Embedded
from service.specs.engine import ENGINE_VERSION
from service.storage import database
from service.storage.tables import Checkpoint, Job, User, Worker
from tests import forked
from tests.integration.doctor.examination import CPU, GPU, REQUEST, examine, finds, is_ok
from tests.integration.job_calls import wait_until_leases_count


def worker(name="w", *, seconds_ago=0.0, **fields):
    row = {"host": name, "slots": 2, "devices": [CPU], "torch": "2.14.1", **fields}
    last_heartbeat = func.clock_timestamp() - timedelta(seconds=seconds_ago)
    with database.transaction() as session:
        session.execute(insert(Worker).values(id=name, heartbeat_at=last_heartbeat, **row))


@pytest.fixture
def alive(empty):
    """A worker that counts as up during the whole test, while others can be lost."""
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
    def test_no_worker_is_an_error(self, empty):
        assert finds("workers", "error", "no worker is running")

    def test_live_worker_is_described(self, alive):
        assert examine("workers") == [("ok", "w: 0 of 2 slots busy, no GPU, torch 2.14.1")]

    @pytest.mark.parametrize(("hours", "level"), [(2, "error"), (47, "warning")])
    def test_lost_worker_is_an_error_for_a_day(self, alive, hours, level):
        worker("gpu7", seconds_ago=hours * 3600)
        assert finds("workers", level, "gpu7 disappeared")

    def test_downtime_of_the_database_does_not_count(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_LEASE_SECONDS", "100000")  # the database has been up for less
        worker(seconds_ago=200_000)
        assert is_ok("workers")

    def test_lost_worker_with_a_successor_is_ok(self, alive):
        worker("before", host="w", seconds_ago=7200)
        assert is_ok("workers")

    def test_two_versions_of_torch_are_a_warning(self, alive):
        worker("other", seconds_ago=-3600, torch="2.11.0")
        assert finds("workers", "warning", "torch (2.11.0, 2.14.1)")

    def test_two_workers_on_one_host_are_a_warning(self, alive):
        worker("other", host="w", seconds_ago=-3600)
        assert finds("workers", "warning", "2 workers run on w")


class TestJobs:
    def test_running_job_without_heartbeats_is_an_error(self, alive, submit, monkeypatch):
        monkeypatch.setattr(work, "STALE", text(work.STALE.text.replace("pg_postmaster_start_time()", "'-infinity'")))
        job_id = submit()
        with database.transaction() as session:
            claims.claim(session, "w", has_cuda=False)
            last_heartbeat = Job.heartbeat_at - timedelta(minutes=5)
            session.execute(update(Job).values(heartbeat_at=last_heartbeat))
        assert finds("jobs", "error", "1 job runs without a heartbeat for up to 5", str(job_id))

    def test_job_queued_beside_idle_slots_is_an_error(self, alive, submit):
        submit(waits=600)
        assert finds("jobs", "error", "queued for 10", "although w has idle slots")

    def test_job_that_waits_for_a_slot_is_ok(self, alive, submit):
        for seed in range(2):
            submit(seed=seed)
            with database.transaction() as session:
                claims.claim(session, "w", has_cuda=False)
        submit(waits=600, seed=9)
        assert is_ok("jobs")

    def test_job_that_waits_for_a_gpu_is_a_warning_while_no_worker_has_one(self, alive, submit):
        submit(waits=600, device="cuda")
        assert finds("jobs", "warning", "1 job waits for a GPU")
        worker("big", seconds_ago=-3600, devices=[GPU, CPU])
        assert finds("jobs", "error", "big has idle slots")

    def test_job_of_a_newer_engine_is_a_warning(self, alive, submit):
        submit(waits=600)
        with database.transaction() as session:
            session.execute(update(Job).values(engine_version=ENGINE_VERSION + 1))
        assert finds("jobs", "warning", f"engine {ENGINE_VERSION + 1}")

    def test_job_with_missing_data_is_a_warning(self, alive, submit):
        submit(dataset="mnist", model="cnn")
        assert finds("jobs", "warning", "'mnist', which is not present")


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

    def test_sound_checkpoint_is_ok(self, checkpoint):
        assert examine("checkpoints") == [("ok", "1, all files present")]

    def test_missing_file_is_an_error(self, checkpoint):
        checkpoint.unlink()
        assert finds("checkpoints", "error", "1 of 1 checkpoint file is missing", checkpoint.name, "unfinished jobs")

    def test_truncated_file_is_an_error(self, checkpoint):
        checkpoint.write_bytes(b"x")
        assert finds("checkpoints", "error", "of the wrong size")

    def test_missing_file_of_an_ended_job_is_a_warning(self, checkpoint):
        checkpoint.unlink()
        with database.transaction() as session:
            session.execute(update(Job).values(status="succeeded"))
        assert finds("checkpoints", "warning", "1 of 1 checkpoint file is missing")


def test_failing_check_does_not_hide_others(alive, monkeypatch):
    def fail(_):
        raise RuntimeError("no such thing")

    monkeypatch.setitem(checks.CHECKS, "disk", fail)
    findings = checks.examine()
    assert {finding.check for finding in findings} == set(checks.CHECKS)
    assert [finding.text for finding in findings if finding.check == "disk"] == [
        "not checked: RuntimeError: no such thing"
    ]


def test_command_exits_with_1_if_there_is_an_error(alive, place, monkeypatch):
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    assert result.stdout.splitlines()[-1].startswith("0 errors, ")
    monkeypatch.setenv("KOTRAIN_SLOT", "2")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    (error,) = [finding for finding in answer["findings"] if finding["level"] == "error"]
    assert (error["check"], answer["errors"], error["remedy"]) == ("settings", 1, "rename it to KOTRAIN_SLOTS")


class TestEmbedded:
    @pytest.fixture
    def installation(self, home, initialized, embedded, monkeypatch):
        """The embedded servers of a home; this process is their owner."""
        monkeypatch.setenv("KOTRAIN_HOME", str(home))
        with Embedded(home, fast=True) as servers:
            running = Running(url="http://127.0.0.1:1", pid=os.getpid())
            (home / "running.json").write_text(running.model_dump_json())
            yield servers

    def test_nothing_is_checked_while_it_starts(self, installation):
        Path(os.environ["KOTRAIN_HOME"], "running.json").unlink()
        installation.valkey.stop()
        installation.postgres.stop()
        assert is_ok("stack")
        for check in ("api", "database", "broker"):
            assert finds(check, "warning", "not checked: kotrain is still starting")

    def test_settings_are_those_of_the_running_stack(self, installation, tmp_path, monkeypatch):
        home = Path(os.environ["KOTRAIN_HOME"])
        settings = {"data_dir": str(tmp_path / "theirs"), "port": 1, "of_a_later_version": 1}
        running = Running(url="http://127.0.0.1:1", pid=os.getpid(), settings=settings)
        (home / "running.json").write_text(running.model_dump_json())
        monkeypatch.setenv("KOTRAIN_DATA_DIR", str(tmp_path / "mine"))
        assert str(tmp_path / "theirs") in examine("data sets")[0][1]
        assert ("ok", "as the running stack has them, not this shell: KOTRAIN_DATA_DIR") in examine("settings")
        running = running.model_copy(update={"pid": os.getpid() + 1})  # a stack that was killed
        (home / "running.json").write_text(running.model_dump_json())
        assert str(tmp_path / "mine") in examine("data sets")[0][1]

    def test_running_servers_are_found(self, installation):
        assert is_ok("stack")
        assert is_ok("broker")
        assert finds("database", "warning", "fsync")

    def test_stopped_database_is_an_error(self, installation):
        installation.postgres.stop()
        assert finds("database", "error", "cannot connect", "its log: ")

    def test_stopped_broker_is_an_error(self, installation):
        installation.valkey.stop()
        assert finds("broker", "error", "cannot connect")

    def test_data_of_another_postgres_version_is_an_error(self, installation):
        version = Path(os.environ["KOTRAIN_HOME"], "postgres", "data", "PG_VERSION")
        version.write_text("17\n")
        assert finds("stack", "error", "PostgreSQL 17")
        version.write_text("18\n")


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("initialized")
def test_running_stack_is_ok_until_its_worker_hangs(home):
    quick = {"KOTRAIN_LEASE_SECONDS": "2", "KOTRAIN_BEAT_SECONDS": "0.2", "KOTRAIN_PORT": "0"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    environment |= quick | {"KOTRAIN_HOME": str(home)}

    def problems():
        process = forked.run("service.commands", "doctor", "--json", env=environment)
        answer = json.loads(process.stdout)
        assert process.returncode == bool(answer["errors"])
        return [
            finding
            for finding in answer["findings"]
            if finding["level"] != "ok" and "gets the right to read" not in finding["text"]  # Python may be below /root
        ]

    before = problems()
    assert {finding["level"] for finding in before} == {"warning"}, before
    assert any("no stack is running" in finding["text"] for finding in before)
    command = [sys.executable, "-m", "service.commands", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert "is running at" in up.stdout.readline()
            deadline = time.monotonic() + 60
            while (remaining := problems()) and time.monotonic() < deadline:  # the worker takes a moment to sign on
                time.sleep(0.5)
            assert remaining == []
            (hung,) = [child for child in psutil.Process(up.pid).children() if "workers" in child.cmdline()]
            hung.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # longer than its lease
            errors = [finding for finding in problems() if finding["level"] == "error"]
            assert [error["check"] for error in errors] == ["workers", "workers"]
            assert "no worker is running" in errors[0]["text"]
            hung.send_signal(signal.SIGCONT)
        finally:
            up.send_signal(signal.SIGTERM)
