"""`kotrain backup` and `kotrain restore` on whole installations: a running one, a stopped one, another home."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest

from service.operations.embedded.postgres import database_url_of
from service.operations.embedded.servers import Embedded
from tests.acceptance.lab import JOB, LONG, Api, running_worker
from tests.acceptance.test_up import SERVERS, command, environment, refusal, running_in
from tests.waiting import until

QUICK = {"KOTRAIN_CHECKPOINT_SECONDS": "0.5", "KOTRAIN_BEAT_SECONDS": "0.2", "KOTRAIN_SLOTS": "2"}


@contextmanager
def installation(home: Path, key: str = "") -> Iterator[httpx2.Client]:
    """The processes of `kotrain up`, and a client with this key; "": a new one of `owner`."""
    with Embedded(home) as servers:
        addresses = dict(zip(SERVERS, (servers.database_url, servers.broker_url), strict=True))
        assert command(home, "migrate", **addresses).returncode == 0
        key = key or command(home, "key", "owner", **addresses).stdout.strip()
        settings = environment(home, **addresses, **QUICK)
        api = Api(settings)
        try:
            with (
                running_worker(settings),
                httpx2.Client(
                    base_url=api.ready().url,
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=60,
                    trust_env=False,
                ) as client,
            ):
                yield client
        finally:
            api.end()


def submit(client: httpx2.Client, job: dict) -> str:
    answer = client.post("/v1/jobs", json=job)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def show(client: httpx2.Client, job: str) -> dict:
    return client.get(f"/v1/jobs/{job}").json()


def has_checkpoints(home: Path, job: str) -> bool:
    with psycopg.connect(database_url_of(home).replace("+psycopg", "")) as connection:
        return connection.execute("SELECT count(*) FROM checkpoints WHERE job_id = %s", [job]).fetchone()[0] == 2


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("initialized")
def test_running_stack_moves_to_another_home(home: Path) -> None:
    file, other = home.with_name("saved.tar"), home.with_name("other")
    with installation(home) as client:
        finished, running = submit(client, JOB), submit(client, LONG)
        until(lambda: show(client, finished)["status"] == "succeeded")
        until(lambda: has_checkpoints(home, running))
        backup = command(home, "backup", str(file))
        assert (backup.returncode, backup.stderr) == (0, "")
        assert backup.stdout.startswith(f"{file}: 2 jobs, ")
        assert "kotrain is already running from" in refusal(home, "restore", str(file))
        before = show(client, finished)
        curves = client.get(f"/v1/jobs/{finished}/metrics").json()
        key = client.headers["Authorization"].removeprefix("Bearer ")
    with tarfile.open(file) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))

    restored = command(other, "restore", str(file))
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "running at the time of the backup: 1 job\n" in restored.stdout
    assert running_in(other) == []
    with installation(other, key) as client:  # keys of the first home are valid
        assert show(client, finished) == before
        assert client.get(f"/v1/jobs/{finished}/metrics").json() == curves
        until(lambda: show(client, running)["status"] == "running" and show(client, running)["progress"]["step"] > 0)
        resumed = show(client, running)
        assert resumed["attempt"] == 2
        checkpoints = [part["name"] for part in manifest["parts"] if running in part["name"]]
        if checkpoints:  # otherwise both were replaced before they were copied, and the job starts from the beginning
            assert resumed["progress"]["step"] >= min(int(Path(name).stem) for name in checkpoints)
        assert client.post(f"/v1/jobs/{running}/cancel").is_success


@pytest.mark.usefixtures("initialized")
def test_stopped_home_is_backed_up_and_errors_take_one_line(home: Path) -> None:
    with Embedded(home) as servers:
        addresses = {"KOTRAIN_DATABASE_URL": servers.database_url, "KOTRAIN_BROKER_URL": servers.broker_url}
        for arguments in (("migrate",), ("key", "owner")):
            assert command(home, *arguments, **addresses).returncode == 0
    first, second = home.with_name("first.tar"), home.with_name("second.tar")
    assert command(home, "backup", str(first)).returncode == 0
    assert running_in(home) == []
    assert f"{first} already exists: choose another file" in refusal(home, "backup", str(first))
    assert "the database already has 1 user and 0 jobs" in refusal(home, "restore", str(first))
    other = home.with_name("other")
    second.write_bytes(first.read_bytes()[:-2000])
    assert f"{second} is damaged" in refusal(other, "restore", str(second))
    assert "cannot open a database in" in refusal(other, "backup", str(home.with_name("third.tar")))
    assert command(home, "gc").stdout.startswith("checkpoints")  # starts the database, too
    assert not other.exists()
    assert sorted(path.name for path in home.parent.iterdir()) == ["first.tar", "home", "second.tar"]
