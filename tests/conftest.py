"""Fixtures for all tests: the embedded servers, an empty schema on them, and the API on that schema."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from starlette.testclient import TestClient

from service.accounts import api_keys
from service.jobs import queue
from service.operations.embedded.servers import Embedded
from service.storage import database
from tests import connections, tables
from tests.clients import client
from tests.thoroughness import replicates

hypothesis.settings.register_profile(
    "kotrain",
    deadline=None,  # no test may fail because the machine is busy
    max_examples=replicates(100),
)
hypothesis.settings.load_profile("kotrain")
MEMORY = "/dev/shm"
gc.disable()  # until all tests are collected: collections would take a seventh of the time


def pytest_collection_finish() -> None:
    """Exclude what has been imported from garbage collections, each of which would take half a second."""
    gc.freeze()
    gc.enable()


@cache
def _memory() -> str | None:
    """A file system in memory with room for the servers' files, which on ext4 took 3 % of all CPU time; None: no such.

    In a container it is often too small, or does not let programs run.
    """
    with suppress(OSError):
        system = os.statvfs(MEMORY)
        if system.f_bavail * system.f_frsize > 4 * 2**30 and not system.f_flag & os.ST_NOEXEC:
            return MEMORY
    return None


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder with a short path that others may enter, unlike pytest's: as root, the servers run as another user."""
    folder = tempfile.TemporaryDirectory(prefix="kotrain-test-", dir=_memory())
    Path(folder.name).chmod(0o711)
    return folder


@pytest.fixture
def home() -> Iterator[Path]:
    """Path of a KOTRAIN_HOME that does not exist yet."""
    with _folder() as folder:
        yield Path(folder, "home")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A database cluster without tables."""
    with _folder() as folder:
        home = Path(folder, "home")
        with Embedded(home, fast=True):
            pass
        yield home / "postgres"


@pytest.fixture
def initialized(home: Path, cluster: Path) -> None:
    """Give `home` a database cluster, for tests that are not about its creation: initdb takes more than a second."""
    _copy(cluster, home)


def _copy(cluster: Path, home: Path) -> None:
    home.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", str(cluster), str(home)], check=True)  # unlike shutil.copytree, with the owners


@pytest.fixture(scope="session")
def servers(cluster: Path) -> Iterator[Embedded]:
    """PostgreSQL (`.database_url`, an empty database) and Valkey (`.broker_url`), shared by the whole session."""
    with _folder() as folder:
        home = Path(folder, "home")
        _copy(cluster, home)
        with Embedded(home, fast=True) as embedded:
            yield embedded


@pytest.fixture
def open_to_users(servers: Embedded) -> Iterator[None]:
    """Open the session's servers to all users, as external servers are: as root, each home has its own account."""
    sockets = Path(servers.broker_url.partition("@")[2]).parent
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (sockets, *sockets.iterdir())}
    for path in modes:
        path.chmod(0o777)
    yield
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.fixture(scope="module")
def schema(servers: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point this process's settings to the servers and create the tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATABASE_URL", servers.database_url)
        patch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
        patch.setenv("KOTRAIN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("KOTRAIN_LEASE_SECONDS", "2")
        connections.forget()
        database.migrate()
        yield
        connections.forget()
    connections.forget()


@pytest.fixture
def empty(schema: None) -> None:
    """An installation without users and jobs, and without wake-up messages in the queue."""
    tables.clear()
    queue.celery().control.purge()


@pytest.fixture
def key(empty: None) -> str:
    """The API key of the user `ada`."""
    return api_keys.create("ada")


@pytest.fixture
def api(key: str) -> Iterator[TestClient]:
    """The API, called as `ada`."""
    with client(key) as ada:
        yield ada
