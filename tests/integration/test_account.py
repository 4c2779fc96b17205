"""The account that root's stack runs as: other users can read nothing of it, and older homes are taken over."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from service.config import settings
from service.operations.embedded.account import OWN_IDS, account_of, refuse_unwritable, unreadable
from service.operations.embedded.process import Account, EmbeddedError
from service.operations.embedded.servers import Embedded
from tests.integration.test_embedded import query
from tests.programs import run_forked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the stack as another user")
NOBODY = pwd.getpwnam("nobody")
ATTACK = """
import json, os, socket, sys
uid, gid, paths, processes = map(json.loads, sys.argv[1:])
os.setgroups([]), os.setgid(gid), os.setuid(uid)
def read(path):
    with open(path, "rb") as file: file.read(1)
def change(path): os.close(os.open(path, os.O_WRONLY))
def enter(path): os.listdir(path)
def create(path): os.close(os.open(os.path.join(path, "planted"), os.O_WRONLY | os.O_CREAT))
def connect(path):
    with socket.socket(socket.AF_UNIX) as client: client.connect(path)
attempts = [(act, path) for path in paths for act in (read, change, enter, create, connect)]
attempts += [(read, f"/proc/{process}/{name}") for process in processes for name in ("environ", "mem", "maps")]
attempts += [(enter, f"/proc/{process}/{name}") for process in processes for name in ("cwd", "root")]
attempts += [(read, f"/proc/{process}/fd/{number}") for process in processes for number in range(10)]
attempts += [(lambda process: os.kill(process, 0), process) for process in processes]
succeeded = []
for act, target in attempts:
    try:
        act(target)
        succeeded.append(f"{act.__name__} {target}")
    except OSError:
        pass
print(json.dumps(succeeded))
"""


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets environment variables for this process's settings."""

    def choose(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield choose
    monkeypatch.undo()
    settings.cache_clear()


def attack(home: Path, processes: list[int], uid: int, gid: int) -> list[str]:
    """What a process of another user can do with the files, the sockets and the processes of a home."""
    # Not a thousand tables, nor the copies of public programs, which others may read.
    paths = [str(path) for path in (home, *home.rglob("*")) if not {"base", "programs"} & {*path.parts}]
    return run_forked(ATTACK, str(uid), str(gid), json.dumps(paths), json.dumps(processes))


def plant(home: Path, name: str, uid: int) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("secret")
    os.chown(path, uid, uid)
    return path


@pytest.mark.usefixtures("initialized")
@pytest.mark.parametrize(("uid", "gid"), [(NOBODY.pw_uid, NOBODY.pw_gid), (12_345, 12_345)], ids=["nobody", "ordinary"])
def test_other_users_reach_nothing_of_a_running_home(home: Path, uid: int, gid: int) -> None:
    plant(home, "files/job/checkpoint", 0)
    plant(home, "data/own/tables/iris/data.npz", 0)
    with Embedded(home, fast=True) as servers:
        leaders = [psutil.Process(servers.postgres.process.pid), psutil.Process(servers.valkey.process.pid)]
        processes = [process.pid for leader in leaders for process in (leader, *leader.children(recursive=True))]
        owner = (home / "postgres").stat().st_uid
        assert {psutil.Process(pid).uids().real for pid in processes} == {owner}
        assert owner in OWN_IDS
        assert attack(home, processes, uid, gid) == []
        assert attack(home / "run", [], owner, owner) != []


def test_creation_of_a_database_shows_nothing_to_the_user_that_lends_its_name(home: Path) -> None:
    seen: list[str] = []
    creators: set[tuple[int, int]] = set()
    done = Event()

    def watch() -> None:
        while not done.is_set():
            for process in psutil.process_iter(["name", "uids", "gids"]):
                if process.info["name"] == "initdb":
                    creators.add((process.info["uids"].real, process.info["gids"].real))
                    found = attack(home, [process.pid], NOBODY.pw_uid, NOBODY.pw_gid)
                    seen.extend(line for line in found if not line.startswith("<lambda>"))  # it may send signals

    watcher = Thread(target=watch)
    watcher.start()
    try:
        with Embedded(home, fast=True) as servers:
            assert query(servers.database_url, "SELECT 1") == 1
    finally:
        done.set()
        watcher.join()
    owner = (home / "postgres").stat().st_uid
    assert creators == {(NOBODY.pw_uid, owner)}
    assert seen == []
    assert {path.stat().st_uid for path in (home / "postgres").rglob("*")} == {owner}


@pytest.mark.usefixtures("initialized")
def test_home_of_an_earlier_version_is_taken_over(home: Path) -> None:
    checkpoint = plant(home, "files/job/checkpoint", 0)
    others = plant(home.parent, "shadow", 0)
    (home / "files" / "trap").hardlink_to(others)
    (home / "files" / "link").symlink_to(others)
    (home / "scratch").symlink_to(home.parent / "elsewhere")
    (home.parent / "elsewhere").mkdir()
    subprocess.run(["chown", "-R", f"{NOBODY.pw_uid}:{NOBODY.pw_gid}", str(home / "postgres")], check=True)
    with Embedded(home, fast=True) as servers:
        query(servers.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        owner = (home / "postgres").stat().st_uid
        assert checkpoint.stat().st_uid == checkpoint.parent.stat().st_uid == owner
    assert (others.stat().st_uid, (home.parent / "elsewhere").stat().st_uid) == (0, 0)
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT answer FROM kept") == 42
        assert (home / "postgres").stat().st_uid == owner


@pytest.mark.usefixtures("initialized")
def test_number_that_another_process_uses_is_not_taken(home: Path) -> None:
    first = account_of(home)
    assert first
    with subprocess.Popen(["sleep", "60"], user=first.uid, group=first.gid, extra_groups=[]) as other:
        second = account_of(home)
        other.kill()
    assert second
    assert second.uid != first.uid
    assert {first.uid, second.uid} < set(OWN_IDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kotrain-missing", r"no user 'kotrain-missing': create it with `useradd --system kotrain-missing`"),
        ("root", r"KOTRAIN_USER is 'root': choose a user of kotrain's own, such as .*useradd --system kotrain"),
        ("nobody", r"KOTRAIN_USER is 'nobody': choose"),
    ],
)
def test_unfit_user_is_refused(home: Path, setting: Callable[..., None], name: str, message: str) -> None:
    setting(KOTRAIN_USER=name)
    with pytest.raises(EmbeddedError, match=message), Embedded(home):
        pass


@pytest.mark.usefixtures("initialized")
def test_named_user_runs_the_servers(home: Path, setting: Callable[..., None]) -> None:
    setting(KOTRAIN_USER="daemon")
    daemon = pwd.getpwnam("daemon")
    with Embedded(home, fast=True) as servers:
        assert query(servers.database_url, "SELECT 1") == 1
        assert psutil.Process(servers.postgres.process.pid).uids().real == daemon.pw_uid


def test_folders_closed_to_the_account_are_named(tmp_path: Path, setting: Callable[..., None]) -> None:
    account = Account("60706", 60_706, 60_706)
    (tmp_path / "closed" / "data").mkdir(parents=True)
    assert account.may_read(Path("/usr"))
    setting(KOTRAIN_DATA_DIR=str(tmp_path / "closed" / "data"), KOTRAIN_FILES=str(tmp_path / "closed"))
    assert unreadable(account)
    with pytest.raises(EmbeddedError, match=rf"cannot write to {tmp_path}/closed .*chown -R 60706:60706"):
        refuse_unwritable(account, settings())
