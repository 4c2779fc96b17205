"""Real installations, broken in one way each: the doctor names it, and finds no error in a sound one."""

import http.server
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, insert, select, text, update
from typer.testing import CliRunner

from service import attempts, db, doctor, jobs, keys
from service.commands import app
from service.doctor import Level, machine, servers, work
from service.embedded import Embedded
from service.models import Checkpoint, Job, User, Worker
from service.schemas import JobRequest
from service.spec import ENGINE_VERSION

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
CPU, GPU = {"kind": "cpu", "name": "2 cores"}, {"kind": "cuda", "name": "A100"}


def look(check):
    """(level, text) of what a check finds."""
    found = doctor.examine([check])
    assert all(one.remedy for one in found if one.level is Level.ERROR), "an error needs a remedy"
    return [(one.level.value, one.text) for one in found]


def says(check, level, *words):
    """Whether a check finds just one thing worse than ok, of this level and with these words."""
    bad = [(found, what) for found, what in look(check) if found != "ok"]
    assert [found for found, _ in bad] == [level], bad
    assert all(word in bad[0][1] for word in words), bad
    return True


def is_well(check):
    return {level for level, _ in look(check)} == {"ok"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home that is there and empty."""
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("KOTRAIN_HOME", str(place))
    return place


@pytest.fixture
def embedded(monkeypatch):
    """An installation without addresses; nothing runs from it."""
    monkeypatch.delenv("KOTRAIN_DATABASE_URL", raising=False)
    monkeypatch.delenv("KOTRAIN_BROKER_URL", raising=False)


class TestSettings:
    @pytest.fixture(autouse=True)
    def beats(self, monkeypatch):
        """As many in the short lease of tests as in an ordinary one."""
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "0.1")

    def test_a_misspelt_variable_is_named_with_the_right_one(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_LEASE_SECOND", "20")
        assert says("settings", "error", "KOTRAIN_LEASE_SECOND;", "did you mean KOTRAIN_LEASE_SECONDS?")

    def test_a_variable_that_nothing_reads(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_COLOUR", "blue")
        assert says("settings", "warning", "KOTRAIN_COLOUR")

    @pytest.mark.parametrize("name", ["KOTRAIN_URL", "KOTRAIN_KEY", "KOTRAIN_REVISION", "kotrain_slots"])
    def test_what_others_read_is_known(self, schema, monkeypatch, name):
        monkeypatch.setenv(name, "1")
        assert is_well("settings")

    def test_a_value_that_is_not_valid_hides_nothing_else(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_PORT", "many")
        monkeypatch.setenv("KOTRAIN_SLOTS", "0")
        found = [what for level, what in look("settings") if level == "error"]
        assert len(found) == 2
        assert is_well("schema")
        assert os.environ["KOTRAIN_PORT"] == "many"

    def test_one_address_alone(self, schema, monkeypatch):
        monkeypatch.delenv("KOTRAIN_BROKER_URL")
        assert says("settings", "error", "KOTRAIN_BROKER_URL is not set")

    def test_a_lease_of_two_heartbeats(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "1.5")
        assert says("settings", "warning", "lease")


class TestHome:
    def test_it_may_be_made_yet(self, embedded, place):
        place.rmdir()
        assert says("home", "warning", "does not exist yet")
        assert says("files", "warning", "not checked")
        assert not place.exists(), "the doctor makes nothing"

    def test_a_file_in_its_place(self, embedded, place):
        place.rmdir()
        place.write_text("")
        assert says("home", "error", "not a folder")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_somebody_elses(self, embedded, place):
        place.chmod(0o711)
        place.parent.chmod(0o711)
        os.chown(place, 12345, 12345)
        assert "belongs to user 12345" in str(look("home"))

    def test_open_to_all(self, schema, place):
        place.chmod(0o777)
        assert says("home", "warning", "by others")

    def test_a_key_that_all_can_read(self, schema, place):
        (place / "key").write_text("kt_secret")
        (place / "key").chmod(0o644)
        assert says("home", "error", "can be read by others")
        assert "kt_secret" not in str(look("home"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only for root the servers are somebody else's")
    def test_closed_to_the_servers_of_root(self, embedded, place):
        assert any("may not enter" in what for level, what in look("home") if level == "error")

    def test_too_long_for_a_socket(self, embedded, tmp_path, monkeypatch):
        long = tmp_path / ("x" * 100)
        long.mkdir(mode=0o711)
        monkeypatch.setenv("KOTRAIN_HOME", str(long))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("y" * 80)))
        assert any("too long for a unix socket" in what for level, what in look("home") if level == "error")


class TestDiskAndMemory:
    @pytest.mark.parametrize(("free", "level"), [(10**8, "error"), (3 * 10**9, "warning")])
    def test_a_full_disk(self, schema, place, monkeypatch, free, level):
        usage = shutil.disk_usage(place)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        assert says("disk", level, "free for home and data")

    def test_small_shared_memory(self, schema, monkeypatch):
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=2**26, free=2**26))
        assert says("memory", "warning", "/dev/shm")

    def test_few_open_files(self, schema):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        try:
            assert says("memory", "warning", "512 files")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestFiles:
    def test_a_probe_is_removed_again(self, schema, place):
        assert is_well("files")
        assert list((place / "files").rglob("*")) == []

    def test_a_store_that_cannot_be_written_to(self, schema, place):
        (place / "files").write_text("no folder")  # root may write into a read-only one
        assert says("files", "error", "no file can be stored")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder(self, schema, place):
        (place / "files").mkdir(mode=0o500)
        assert says("files", "error", "Permission denied")

    def test_a_protocol_that_nobody_knows(self, schema, place, monkeypatch):
        monkeypatch.setenv("KOTRAIN_FILES", "floppy://a")
        assert says("files", "error", "floppy")


class TestPackages:
    def test_they_are_what_this_kotrain_asks_for(self, schema):
        assert is_well("packages")

    def test_an_old_one(self, schema, monkeypatch):
        there = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: "0.9.1" if name == "fastapi" else there(name))
        assert says("packages", "error", "fastapi is 0.9.1")

    @pytest.mark.parametrize(("torch", "vision"), [("2.14.1", "0.28.0"), ("2.11.0+cpu", "0.26.0")])
    def test_a_torchvision_of_another_torch(self, schema, monkeypatch, torch, vision):
        versions = {"torch": torch, "torchvision": vision}
        there = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: versions.get(name) or there(name))
        assert says("packages", "error", torch, vision)

    def test_torch_is_not_loaded_for_it(self):
        program = (
            "import sys; from service import doctor; doctor.examine(['packages']); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def port(monkeypatch):
    """A free one, in the settings."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("KOTRAIN_PORT", str(port))
    return port


class TestApi:
    def test_nothing_answers(self, schema, port):
        assert says("api", "warning", "nothing answers")

    def test_a_free_port(self, embedded, place, port):
        assert is_well("api")

    def test_another_program_that_speaks_http(self, schema, port):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", port), Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert says("api", "error", f"port {port} is taken by another program")
            server.shutdown()

    def test_another_program_that_says_nothing(self, embedded, place, port, monkeypatch):
        monkeypatch.setattr(servers, "WAIT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", port)):
            assert says("api", "error", "taken by another program", str(os.getpid()))


class TestDatabase:
    def test_a_sound_one(self, empty):
        for check in ("schema", "connections", "clock"):
            assert is_well(check)

    def test_one_that_can_lose_what_was_accepted(self, empty):
        assert says("database", "warning", "fsync")

    def test_one_that_is_not_there(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", "postgresql://kotrain:secret@127.0.0.1:1/kotrain")
        assert says("database", "error", "does not answer")
        for check in ("schema", "clock", "workers", "jobs", "checkpoints"):
            assert says(check, "warning", "not checked")
        assert "secret" not in str(doctor.examine())

    def test_no_schema_yet(self, servers, empty, monkeypatch):
        url = _another_database(servers, "bare")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert says("schema", "error", "no schema yet")
        assert says("jobs", "warning", "not checked: the tables are not this version's")

    def test_a_schema_that_is_too_new(self, empty):
        with db.engine().begin() as connection:
            before = connection.scalar(text("SELECT version_num FROM alembic_version"))
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("UPDATE compatibility SET oldest_code = 9999"))
        try:
            assert says("schema", "error", "9999")
        finally:
            with db.engine().begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": before})
                connection.execute(text("UPDATE compatibility SET oldest_code = 2"))

    def test_an_encoding_that_cannot_hold_names(self, servers, empty, monkeypatch):
        url = _another_database(
            servers, "latin", "ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", url)
        assert "encoding is LATIN1" in str(look("database"))

    def test_few_connections_left(self, empty, monkeypatch):
        monkeypatch.setattr(servers, "POOL_CONNECTIONS", 1000)
        assert says("connections", "warning", "are left")

    @pytest.mark.parametrize("seconds", [-60, 60])
    def test_a_clock_that_is_wrong(self, empty, monkeypatch, seconds):
        now = time.time
        monkeypatch.setattr(servers.time, "time", lambda: now() + seconds)
        assert says("clock", "warning", "1 min", "ahead of" if seconds > 0 else "behind")


def _another_database(servers, name, options=""):
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    return servers.database_url.replace("/kotrain?", f"/{name}?")


class TestBroker:
    def test_a_sound_one(self, empty):
        assert is_well("broker")

    def test_one_that_is_not_there(self, empty, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BROKER_URL", "redis://127.0.0.1:1/0")
        assert says("broker", "error", "does not answer")

    def test_a_wrong_password(self, servers, empty, monkeypatch):
        scheme, _, path = servers.broker_url.partition("@")
        monkeypatch.setenv("KOTRAIN_BROKER_URL", f"{scheme.partition('//')[0]}//:wrong@{path}")
        assert says("broker", "error", "password")
        assert "wrong@" not in str(look("broker"))


# --- work ------------------------------------------------------------------------------------------------------------


def worker(name="w", *, seconds_ago=0.0, **fields):
    row = {"host": name, "slots": 2, "devices": [CPU], "torch": "2.14.1", **fields}
    silent = func.clock_timestamp() - timedelta(seconds=seconds_ago)
    with db.transaction() as session:
        session.execute(insert(Worker).values(id=name, heartbeat_at=silent, **row))


@pytest.fixture
def alive(empty):
    """A worker with a sign of life that lasts for a test."""
    worker(seconds_ago=-3600)


@pytest.fixture
def submit(empty):
    keys.create("ada")

    def submit(*, waits=0.0, **fields):
        with db.transaction() as session:
            ada = session.scalars(select(User)).one()
            (job_id,) = jobs.submit_many(session, ada, [JobRequest.model_validate(REQUEST | fields)], is_direct=True)
            since = Job.available_at - timedelta(seconds=waits)
            session.execute(update(Job).where(Job.id == job_id).values(available_at=since))
        return job_id

    return submit


class TestWorkers:
    def test_none(self, empty):
        assert says("workers", "error", "no worker gives a sign of life")

    def test_one_that_lives(self, alive):
        assert look("workers") == [("ok", "w: 0 of 2 slots busy, no GPU, torch 2.14.1")]

    def test_one_that_was_lost(self, alive):
        worker("gpu7", seconds_ago=7200)
        assert says("workers", "warning", "gpu7 was lost 2 h ago")

    def test_one_that_was_lost_and_started_again(self, alive):
        worker("before", host="w", seconds_ago=7200)
        assert is_well("workers")

    def test_two_versions_of_torch(self, alive):
        worker("other", seconds_ago=-3600, torch="2.11.0")
        assert says("workers", "warning", "torch 2.11.0 and 2.14.1")

    def test_two_on_one_host(self, alive):
        worker("other", host="w", seconds_ago=-3600)
        assert says("workers", "warning", "2 workers live on w")


class TestJobs:
    def test_a_job_that_runs_without_a_sign_of_life(self, alive, submit, monkeypatch):
        monkeypatch.setattr(work, "STALE", text(work.STALE.text.replace("pg_postmaster_start_time()", "'-infinity'")))
        job_id = submit()
        with db.transaction() as session:
            attempts.claim(session, "w", has_cuda=False)
            silent = Job.heartbeat_at - timedelta(minutes=5)
            session.execute(update(Job).values(heartbeat_at=silent))
        assert says("jobs", "error", "1 job runs without a sign of life for up to 5 min", str(job_id))

    def test_a_job_that_was_forgotten(self, alive, submit):
        submit(waits=600)
        assert says("jobs", "error", "waits for 10 min although w has idle slots")

    def test_a_job_that_waits_for_a_slot(self, alive, submit):
        for seed in range(2):
            submit(seed=seed)
            with db.transaction() as session:
                attempts.claim(session, "w", has_cuda=False)
        submit(waits=600, seed=9)
        assert is_well("jobs")

    def test_a_job_that_waits_for_a_gpu(self, alive, submit):
        submit(waits=600, device="cuda")
        assert says("jobs", "warning", "1 job waits for a GPU")
        worker("big", seconds_ago=-3600, devices=[GPU, CPU])
        assert says("jobs", "error", "big has idle slots")

    def test_a_job_of_a_newer_engine(self, alive, submit):
        submit(waits=600)
        with db.transaction() as session:
            session.execute(update(Job).values(engine_version=ENGINE_VERSION + 1))
        assert says("jobs", "warning", f"engine {ENGINE_VERSION + 1}")

    def test_a_job_whose_data_is_not_here(self, alive, submit):
        submit(dataset="mnist", model="cnn")
        assert says("jobs", "warning", "'mnist', which is not here")


class TestCheckpoints:
    @pytest.fixture
    def checkpoint(self, alive, submit, place):
        job_id = submit()
        name = f"jobs/{job_id}/1/10.pt"
        file = place / "files" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 10)
        row = {"job_id": job_id, "attempt": 1, "step": 10, "file": name, "size_bytes": 10, "sha256": "", "seconds": 1}
        with db.transaction() as session:
            session.execute(insert(Checkpoint).values(row))
        return file

    def test_a_sound_one(self, checkpoint):
        assert look("checkpoints") == [("ok", "1, with their files")]

    def test_a_missing_file(self, checkpoint):
        checkpoint.unlink()
        assert says("checkpoints", "error", "is missing", checkpoint.name, "to go on")

    def test_a_truncated_file(self, checkpoint):
        checkpoint.write_bytes(b"x")
        assert says("checkpoints", "error", "has another size")

    def test_of_a_job_that_has_ended_it_is_no_error(self, checkpoint):
        checkpoint.unlink()
        with db.transaction() as session:
            session.execute(update(Job).values(status="succeeded"))
        assert says("checkpoints", "warning", "is missing")


# --- the whole -------------------------------------------------------------------------------------------------------


def test_a_check_that_fails_hides_nothing(alive, monkeypatch):
    def fail(_):
        raise RuntimeError("no such thing")

    monkeypatch.setitem(doctor.CHECKS, "disk", fail)
    found = doctor.examine()
    assert {one.check for one in found} == set(doctor.CHECKS)
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
            yield own

    def test_its_servers_are_found(self, own):
        assert is_well("stack")
        assert is_well("broker")
        assert says("database", "warning", "fsync")

    def test_a_stopped_database(self, own):
        own.postgres.stop()
        assert says("database", "error", "does not answer", "its log ends")

    def test_a_stopped_broker(self, own):
        own.valkey.stop()
        assert says("broker", "error", "does not answer")

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
        command = [sys.executable, "-m", "service.commands", "doctor", "--json"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == bool(answer["errors"])
        return [one for one in answer["findings"] if one["level"] != "ok"]

    before = told()
    assert {one["level"] for one in before} == {"warning"}, before
    assert any("nothing runs" in one["text"] for one in before)
    command = [sys.executable, "-m", "service.commands", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert "answers at" in up.stdout.readline()
            deadline = time.monotonic() + 60
            while (bad := told()) and time.monotonic() < deadline:  # the worker takes a moment to make itself known
                time.sleep(0.5)
            assert bad == []
            (hung,) = [one for one in psutil.Process(up.pid).children() if "workers" in one.cmdline()]
            hung.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # its lease
            (bad,) = [one for one in told() if one["level"] == "error"]
            assert "no worker gives a sign of life" in bad["text"]
            hung.send_signal(signal.SIGCONT)
        finally:
            up.send_signal(signal.SIGTERM)
