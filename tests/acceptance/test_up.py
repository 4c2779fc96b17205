"""`up` and the other commands of the service as processes: exit statuses, output, HTTP."""

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
import psutil
import psycopg
import pytest

from service.config import Settings
from service.operations.embedded.servers import Embedded
from tests import forked
from tests.programs import run_forked
from tests.waiting import until

READ = """
import json, os, sys
pid, uid, gid = map(int, sys.argv[1:])
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(gid), os.setuid(uid)
read = []
for name in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/{pid}/{name}", "rb"):
            read.append(name)
    except PermissionError:
        pass
print(json.dumps(read))
"""
CAN_READ = 1 << 2  # CAP_DAC_READ_SEARCH
SERVERS = ("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")


def environment(home: Path, **settings: str) -> dict[str, str]:
    """This environment without its settings. An LC_ variable, which reaches the worker's children, too, is the mark."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    return plain | {"KOTRAIN_HOME": str(home), "KOTRAIN_SLOTS": "1", "LC_KOTRAIN_TEST": str(home)} | settings


def command(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return forked.run("service.commands", *arguments, env=environment(home, **settings))


def refusal(home: Path, *arguments: str, **settings: str) -> str:
    """Run a command that must fail; return its single line on standard error."""
    process = command(home, *arguments, **settings)
    assert (process.returncode, process.stdout) == (1, "")
    (line,) = process.stderr.splitlines()
    return line


def running_in(home: Path) -> list[str]:
    """Command lines of the processes that carry the mark or work in the home."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"LC_KOTRAIN_TEST={home}".encode() in (process / "environ").read_bytes().split(b"\0")
            if marked or Path(os.readlink(process / "cwd")).is_relative_to(home):
                command_lines.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or belongs to another user
    return command_lines


@contextmanager
def up(home: Path, *options: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], httpx2.Client]]:
    """A running stack, and a client with its owner's key."""
    line = [sys.executable, "-m", "service.commands", "up", "--port", "0", *options]
    # If the tests run as a background job of a shell, they ignore Ctrl-C, and their children would inherit that.
    default_handler = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        line, env=environment(home, **settings), stdout=subprocess.PIPE, text=True, **default_handler
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


def privileges(process: Path) -> tuple[int, int, bool]:
    """User id, effective capabilities, and whether programs that it starts can gain privileges."""
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    status = {name: values[0] for name, *values in lines if values}
    return int(status["Uid:"]), int(status["CapEff:"], 16), status["NoNewPrivs:"] == "0"


def assert_unprivileged(home: Path, supervisor: int) -> None:
    """All processes but the supervisor have no privileges; as root, one may be needed to read Python itself."""
    allowed = {0, CAN_READ} if os.geteuid() == 0 else {0}
    account = (home / "postgres").stat().st_uid
    children = [child.pid for child in psutil.Process(supervisor).children(recursive=True)]
    assert len(children) > 5
    for pid in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            uid, capabilities, gains = privileges(Path("/proc", str(pid)))
            assert (uid, gains) == (account, False)
            assert capabilities in allowed


def hides_its_memory(home: Path, pid: int) -> bool:
    """Whether a process of the same user, without privileges, can read neither its environment nor its memory."""
    owner = (home / "postgres").stat()
    return run_forked(READ, str(pid), str(owner.st_uid), str(owner.st_gid)) == []


def api_process(home: Path) -> int:
    """Process id of the API: the only child of the stack that inherited the listening socket by number."""
    pids = []
    for process in psutil.Process(int((home / "lock").read_text())).children():
        with suppress(psutil.Error):  # the process has just ended
            if {"--fd", "api"} <= set(process.cmdline()):
                pids.append(process.pid)
    (pid,) = pids
    return pid


@pytest.mark.usefixtures("initialized")
def test_stack_starts_restarts_its_api_stops_and_starts_again(home: Path) -> None:
    with up(home) as (process, client):
        written = json.loads((home / "running.json").read_text())
        assert (written["url"], written["pid"]) == (str(client.base_url).rstrip("/"), process.pid)
        assert written["settings"].keys() == Settings.model_fields.keys() - {"home", "database_url", "broker_url"}
        assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600
        assert client.get("/readyz").json()["status"] == "ok"
        assert_unprivileged(home, process.pid)
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401

        port = client.base_url.port
        assert f"kotrain is already running from {home} (process {process.pid})" in refusal(home, "up")
        assert f"port {port} (Address already in use): choose another port with --port N" in refusal(
            home.with_name("second"), "up", "--port", str(port)
        )
        assert hides_its_memory(home, api_process(home))
        client.get("/v1/jobs?search=confidential", headers={"X-Forwarded-For": "203.0.113.7"})
        log = (home / "logs" / "api.log").read_text()
        assert '"GET /v1/jobs HTTP/1.1" 200' in log
        assert "confidential" not in log
        assert "203.0.113.7" not in log  # no proxy is trusted
        created = command(home, "key", "ann")
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {created.stdout.strip()}"}).status_code == 200

        killed = api_process(home)
        os.kill(killed, signal.SIGKILL)
        until(lambda: not Path("/proc", str(killed)).exists())
        assert client.get("/v1/jobs").status_code == 200  # the request waited in the socket for the new process
        assert api_process(home) != killed

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert running_in(home) == []
        assert not (home / "running.json").exists()
        ends = [(home / "logs" / f"{name}.log").stat().st_mtime_ns for name in ("api", "valkey", "postgres")]
        assert ends == sorted(ends)

    refused = refusal(home, "up", "--host", "192.0.2.1", "--port", "0")
    assert refused.endswith("choose an address of this machine with --host")
    key = (home / "key").read_text()
    with up(home, "--host", "0.0.0.0") as (process, client):
        assert process.stdout.readline().startswith(f"  from other machines: http://{socket.gethostname()}:")
        assert client.base_url.host == "127.0.0.1"
        assert (home / "key").read_text() == key
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {created.stdout.strip()}"}).status_code == 200
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


@pytest.mark.usefixtures("open_to_users")
def test_up_uses_external_servers(home: Path, servers: Embedded, own_database: str) -> None:
    addresses = dict(zip(SERVERS, (own_database, servers.broker_url), strict=True))
    with up(home, **addresses) as (process, client):
        assert client.get("/readyz").json()["status"] == "ok"
        assert not (home / "postgres").exists()
        process.terminate()
        assert process.wait(60) == 0
    assert running_in(home) == []


@pytest.mark.parametrize("missing", SERVERS)
def test_address_of_a_single_server_is_refused(home: Path, missing: str) -> None:
    (present,) = set(SERVERS) - {missing}
    url = {"KOTRAIN_DATABASE_URL": "postgresql://nowhere/x", "KOTRAIN_BROKER_URL": "redis://nowhere"}[present]
    assert f"{missing} is not set: set both" in refusal(home, "up", "--port", "0", **{present: url})


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_single_processes_require_external_servers(home: Path, name: str) -> None:
    assert "KOTRAIN_DATABASE_URL is not set" in refusal(home, name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the stack as another user")
def test_data_that_only_root_can_read_needs_a_capability(home: Path, tmp_path: Path) -> None:
    """Many containers withhold it from root."""
    closed = tmp_path / "data"
    closed.mkdir(mode=0o700)
    line = ["setpriv", "--bounding-set=-dac_read_search", sys.executable, "-m", "service.commands", "up", "--port", "0"]
    refused = subprocess.run(
        line, env=environment(home, KOTRAIN_DATA_DIR=str(closed)), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "this container does not allow CAP_DAC_READ_SEARCH" in refused.stderr


def test_invalid_setting_is_named(home: Path) -> None:
    assert "KOTRAIN_SLOTS" in refusal(home, "up", KOTRAIN_SLOTS="many")


def test_api_without_keys_listens_on_loopback_only(home: Path, servers: Embedded, own_database: str) -> None:
    addresses = dict(zip(SERVERS, (own_database, servers.broker_url), strict=True))
    assert command(home, "migrate", **addresses).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = refusal(home, "api", "--host", "0.0.0.0", "--port", str(port), **addresses)
    assert "listening on 0.0.0.0 requires an API key: create one with `kotrain key NAME`" in line


def test_current_folder_as_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, settings in ((("up", "--home", ""), {}), (("up",), {"KOTRAIN_HOME": ""})):
        assert "must be a folder other than the current one" in refusal(tmp_path, *arguments, **settings)
    assert list(tmp_path.iterdir()) == []
