"""`up` and its sisters as their users meet them: processes, exit statuses, lines, HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import psycopg
import pytest

from service.operations.embedded.servers import Embedded
from tests import forked
from tests.waiting import until

SERVERS = ("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Ours without its settings; LC_ variables reach even the children of the worker, so one of them marks them."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    return plain | {"KOTRAIN_HOME": str(home), "KOTRAIN_SLOTS": "1", "LC_KOTRAIN_TEST": str(home)} | more


def command(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return forked.run("service.commands", *arguments, env=environment(home, **more))


def refusal(home: Path, *arguments: str, **more: str) -> str:
    """The one line on standard error of a command that must fail."""
    done = command(home, *arguments, **more)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def running_in(home: Path) -> list[str]:
    """Processes that bear our mark or work in the home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"LC_KOTRAIN_TEST={home}".encode() in (process / "environ").read_bytes().split(b"\0")
            if marked or Path(os.readlink(process / "cwd")).is_relative_to(home):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # gone, or not ours to see
    return found


@contextmanager
def up(home: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], httpx2.Client]]:
    """A stack that answers, and a client with its owner's key."""
    line = [sys.executable, "-m", "service.commands", "up", "--port", "0"]
    # A shell's background job, which the tests may be, ignores Ctrl-C, and so would what it starts.
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        line, env=environment(home, **more), stdout=subprocess.PIPE, text=True, **listening
    ) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            url = first.removeprefix("kotrain is running at ").strip()
            with httpx2.Client(base_url=url, headers=login(home), timeout=30, trust_env=False) as client:
                yield process, client
        finally:
            process.terminate()
            process.wait(60)


def login(home: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(home / 'key').read_text().strip()}"}


def api_process(home: Path) -> int:
    """Its process id: the only one that inherited the listening socket by number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            line = (process / "cmdline").read_bytes().split(b"\0")
            ours = f"KOTRAIN_HOME={home}".encode() in (process / "environ").read_bytes()
            if b"--fd" in line and b"api" in line and ours:
                found.append(int(process.name))
    (only,) = found
    return only


def test_a_stack_from_start_to_stop_and_again(home: Path) -> None:
    with up(home) as (process, client):
        assert json.loads((home / "running.json").read_text()) == {
            "url": str(client.base_url).rstrip("/"),
            "pid": process.pid,
        }
        assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600
        assert client.get("/readyz").json()["status"] == "ok"
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401

        port = client.base_url.port
        assert f"kotrain is already running from {home} (process {process.pid})" in refusal(home, "up")
        assert f"port {port} (Address already in use): choose another port with --port N" in refusal(
            home.with_name("second"), "up", "--port", str(port)
        )
        made = command(home, "key", "ann")
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {made.stdout.strip()}"}).status_code == 200

        first = api_process(home)
        os.kill(first, signal.SIGKILL)
        until(lambda: not Path("/proc", str(first)).exists())
        assert client.get("/v1/jobs").status_code == 200  # it waited in the socket for the new one
        assert api_process(home) != first

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert running_in(home) == []
        assert not (home / "running.json").exists()
        ends = [(home / "logs" / f"{name}.log").stat().st_mtime_ns for name in ("api", "valkey", "postgres")]
        assert ends == sorted(ends)

    key = (home / "key").read_text()
    with up(home) as (process, client):
        assert (home / "key").read_text() == key
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {made.stdout.strip()}"}).status_code == 200
        process.kill()
        process.wait()
        until(lambda: not running_in(home))


@pytest.fixture
def own_database(servers: Embedded, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on the session's server."""
    name = f"up_{abs(hash(request.node.name))}"
    plain = servers.database_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield servers.database_url.replace("/kotrain?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_with_servers_of_ones_own(home: Path, servers: Embedded, own_database: str) -> None:
    given = dict(zip(SERVERS, (own_database, servers.broker_url), strict=True))
    with up(home, **given) as (process, client):
        assert client.get("/readyz").json()["status"] == "ok"
        assert not (home / "postgres").exists()
        process.terminate()
        assert process.wait(60) == 0
    assert running_in(home) == []


@pytest.mark.parametrize("missing", SERVERS)
def test_one_of_two_servers_is_not_enough(home: Path, missing: str) -> None:
    (given,) = set(SERVERS) - {missing}
    url = {"KOTRAIN_DATABASE_URL": "postgresql://nowhere/x", "KOTRAIN_BROKER_URL": "redis://nowhere"}[given]
    assert f"{missing} is not set: set both" in refusal(home, "up", "--port", "0", **{given: url})


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_a_part_alone_needs_its_servers(home: Path, name: str) -> None:
    assert "KOTRAIN_DATABASE_URL is not set" in refusal(home, name)


def test_a_wrong_setting_is_named(home: Path) -> None:
    assert "KOTRAIN_SLOTS" in refusal(home, "up", KOTRAIN_SLOTS="many")


def test_without_keys_only_loopback(home: Path, servers: Embedded, own_database: str) -> None:
    given = dict(zip(SERVERS, (own_database, servers.broker_url), strict=True))
    assert command(home, "migrate", **given).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = refusal(home, "api", "--host", "0.0.0.0", "--port", str(port), **given)
    assert "listening on 0.0.0.0 requires an API key: create one with `kotrain key NAME`" in line


def test_the_current_folder_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, more in ((("up", "--home", ""), {}), (("up",), {"KOTRAIN_HOME": ""})):
        assert "must be a folder other than the current one" in refusal(tmp_path, *arguments, **more)
    assert list(tmp_path.iterdir()) == []
