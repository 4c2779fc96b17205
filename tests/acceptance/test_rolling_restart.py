"""A rolling restart: the previous version and this one run on the same database, with the new schema."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from service.operations.embedded.servers import Embedded
from service.storage import schema_version
from tests import forked
from tests.forked import Forked
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PREVIOUS = "a99af0f"
"""The last commit of the version before this one. Update it and the schema number below with each release.

Only this version's jobs, plans and checkpoints are read by the new code; those of commits in between are not tested.
"""
PREVIOUS_SCHEMA = 2
PACKAGES = ("service", "workers", "ko", "kotrain", "migrations")

CODE = schema_version.code_number()

JOB = {
    "dataset": {"name": "digits", "params": {"split": "golden"}},
    "model": {"name": "mlp", "params": {"hidden": [16]}},
    "optimizer": "adam",
    "budget": {"epochs": 2},
}


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the previous version's packages, taken from the git history."""
    if shutil.which("git") is None:
        pytest.skip(f"git is required to read the code of {PREVIOUS}")
    archive = subprocess.run(["git", "-C", ROOT, "archive", PREVIOUS, *PACKAGES], capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"the code of {PREVIOUS} is missing: use a git checkout with its history (not shallow)")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


class Versions:
    """Starts processes of the previous version (`old`) or of this one on one database."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self._environment, self._logs = environment, logs
        self._key = ""
        self.previous: Path | None = None

    def environment(self, *, old: bool) -> dict[str, str]:
        folder = self.previous if old else ROOT
        assert folder is not None
        return self._environment | {"PYTHONPATH": str(folder)}

    def command(self, *arguments: str, old: bool) -> subprocess.CompletedProcess[str]:
        if not old:
            return forked.run("service.commands", *arguments, env=self.environment(old=old))
        line = [sys.executable, "-P", "-m", "service.commands", *arguments]
        return subprocess.run(line, env=self.environment(old=old), capture_output=True, text=True, timeout=60)

    def python(self, script: str, *, old: bool) -> str:
        """Run a script that imports this version; return its output."""
        environment = self.environment(old=old)
        if old:
            line = [sys.executable, "-P", "-c", script]
            process = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
        else:
            process = forked.run("tests.programs", script, env=environment)
        assert process.returncode == 0, process.stderr
        return process.stdout

    def code_of(self, *, old: bool) -> Path:
        """The folder from which Python imports this version."""
        output = self.python("import service, workers; print(service.__file__, workers.__file__)", old=old)
        (folder,) = {Path(file).parents[1] for file in output.split()}
        return folder

    @contextmanager
    def running(self, name: str, arguments: list[str], *, old: bool, inherited: tuple[int, ...] = ()) -> Iterator[Path]:
        """Run a process inside the block; yields its log."""
        log = self._logs / f"{name}-{'old' if old else 'new'}.log"
        with log.open("w") as file:
            options: dict[str, Any] = {"env": self.environment(old=old), "stdout": file, "stderr": file}
            if old:
                process = subprocess.Popen([sys.executable, "-P", "-m", *arguments], pass_fds=inherited, **options)
            else:
                process = Forked(*arguments, pass_fds=inherited, **options)
            try:
                yield log
            finally:
                process.terminate()
                code = process.wait(30)
        assert code == 0, log.read_text()

    @contextmanager
    def api(self, *, old: bool) -> Iterator[httpx2.Client]:
        if not self._key:
            self._key = self.command("key", "ada", old=old).stdout.strip()
        headers = {"Authorization": f"Bearer {self._key}"}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            descriptor = listener.fileno()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            arguments = ["service.commands", "api", "--fd", str(descriptor)]
            with (
                self.running("api", arguments, old=old, inherited=(descriptor,)),
                httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
            ):
                assert client.get("/healthz", timeout=120).status_code == 200  # once it has started
                yield client

    def query(self, statement: str) -> Any:
        """Return the first value of the first row."""
        with self._connected() as connection:
            row = connection.execute(statement).fetchone()
        return row and row[0]

    def execute(self, statement: str) -> None:
        with self._connected() as connection:
            connection.execute(statement)

    def _connected(self) -> psycopg.Connection:
        return psycopg.connect(self._environment["KOTRAIN_DATABASE_URL"].replace("+psycopg", ""))

    @contextmanager
    def worker(self, *, old: bool) -> Iterator[None]:
        with self.running("worker", ["workers"], old=old) as log:
            until(lambda: "ready." in log.read_text())
            yield


@pytest.fixture
def this_version(servers: Embedded, tmp_path: Path, home: Path) -> Iterator[Versions]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("KOTRAIN_", "PYTHON"))}
    settings = {
        "KOTRAIN_DATABASE_URL": servers.database_url.replace("/kotrain?", "/rolling?"),
        "KOTRAIN_BROKER_URL": servers.broker_url,
        "KOTRAIN_HOME": str(home),
        "KOTRAIN_SLOTS": "1",
        "KOTRAIN_BEAT_SECONDS": "0.2",
        "KOTRAIN_MAINTENANCE_SECONDS": "0.3",
    }
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("CREATE DATABASE rolling")
        yield Versions(plain | settings, tmp_path)
        admin.execute("DROP DATABASE rolling WITH (FORCE)")


@pytest.fixture
def versions(previous: Path, this_version: Versions) -> Versions:
    """Both versions, on a database of their own."""
    this_version.previous = previous
    return this_version


def submit(client: httpx2.Client, **fields: object) -> str:
    answer = client.post("/v1/jobs", json=JOB | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def trained(client: httpx2.Client, job: str) -> dict:
    """Wait until the job has succeeded, and return its curves."""
    until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] not in ("queued", "running"))
    ended = client.get(f"/v1/jobs/{job}").json()
    assert (ended["status"], ended["reason"], ended["attempt"]) == ("succeeded", "completed", 1), ended
    return client.get(f"/v1/jobs/{job}/metrics").json()["metrics"]


def schema_of(versions: Versions) -> object:
    url = versions.environment(old=False)["KOTRAIN_DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        columns = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        rows = connection.execute(f"{columns} WHERE table_schema = 'public' ORDER BY 1, 2").fetchall()
        return rows, connection.execute("SELECT version_num FROM alembic_version").fetchall()


@pytest.mark.timeout(240)
def test_old_and_new_version_run_side_by_side(versions: Versions, previous: Path) -> None:
    assert versions.code_of(old=True) == previous
    assert versions.code_of(old=False) == ROOT

    assert versions.command("migrate", old=True).returncode == 0
    assert schema_of(versions)[1] == [(f"{PREVIOUS_SCHEMA:04}",)]
    refused = versions.command("api", old=False)
    assert refused.returncode == 1
    assert f"schema {PREVIOUS_SCHEMA}, this kotrain requires {CODE}: run `kotrain migrate`" in refused.stderr

    curves = []
    with ExitStack() as old_processes:
        old_api = old_processes.enter_context(versions.api(old=True))
        with versions.worker(old=True):
            curves.append(trained(old_api, submit(old_api)))
            assert versions.command("migrate", old=False).returncode == 0
            curves.append(trained(old_api, submit(old_api)))
            with versions.api(old=False) as new_api:
                curves.append(trained(new_api, submit(new_api)))
                assert new_api.get("/readyz").json()["status"] == "ok"
        with versions.worker(old=False):
            curves.append(trained(old_api, submit(old_api)))
    for name in ("train_loss", "test_accuracy"):
        values = [curve[name]["values"] for curve in curves]
        assert values.count(values[0]) == 4


def test_old_version_does_not_migrate_the_new_schema(versions: Versions) -> None:
    assert versions.command("migrate", old=False).returncode == 0
    before = schema_of(versions)
    versions.command("migrate", old=True)  # it refuses this schema; the message depends on the version
    assert schema_of(versions) == before
    assert versions.command("migrate", old=False).returncode == 0


# The calls of each version's worker in the database, without training: claim, heartbeat, end.
# The old version had all of them in `service.jobs`.
OLD = "from service import db, jobs\nclaims = heartbeats = outcomes = jobs\n"
NEW = "from service.storage import database as db\nfrom service.jobs import claims, heartbeats, outcomes\n"
CLAIM = """
def points(first, last):
    steps = list(range(first, last + 1, 10))
    return {"train_loss": (steps, [1 / step for step in steps], [step / 10 for step in steps])}
def do(call, *arguments, **options):
    with db.transaction() as session:
        return call(session, *arguments, **options)
claim = do(claims.claim, "w", has_cuda=False)
"""
NEW_BEGINS = """
from service.jobs.checkpoints import Written
written = [Written(step, f"jobs/{claim.job_id}/1/{step}.pt", 1, "0" * 64, 1.0) for step in (80, 100)]
do(heartbeats.beat, "w", [heartbeats.Beat(claim, 100, 200, [heartbeats.Batch(points(10, 100), written)])])
do(outcomes.requeue, claim, "the worker is shutting down")
"""
OLD_RESTARTS = """
do(heartbeats.beat, "w", [heartbeats.Beat(claim, 50, 200, [points(10, 50)])])
do(outcomes.give_back, claim, "the worker is shutting down")
"""
NEW_RESUMES = """
from service.jobs import checkpoints
from service.specs.states import Reason
stored = do(checkpoints.newest_first, claim.job_id)
step = stored[0].step if stored else 0
assert do(claims.begin, claim, step)
assert do(outcomes.finish, claim, Reason.ERROR, batches=[heartbeats.Batch(points(step + 10, 200))])
"""


def test_job_moves_between_versions(versions: Versions) -> None:
    """New, old, new: the old version has no checkpoints and restarts; no point is missing or duplicated afterwards."""
    assert versions.command("migrate", old=False).returncode == 0
    with versions.api(old=False) as client:
        job = submit(client)
        for script, old in ((NEW_BEGINS, False), (OLD_RESTARTS, True), (NEW_RESUMES, False)):
            versions.python((OLD if old else NEW) + CLAIM + script, old=old)
        assert client.get(f"/v1/jobs/{job}").json()["attempt"] == 3
        points = client.get(f"/v1/jobs/{job}/metrics").json()["metrics"]["train_loss"]
    assert points["steps"] == list(range(10, 201, 10))


class TestOtherSchemas:
    """The response of each command to a newer schema and to none."""

    NEWER = CODE + 2

    @pytest.fixture
    def newer(self, this_version: Versions) -> Versions:
        """The database of a later release, which this version cannot use."""
        assert this_version.command("migrate", old=False).returncode == 0
        this_version.execute(f"UPDATE alembic_version SET version_num = '{self.NEWER:04}'")
        this_version.execute(f"UPDATE compatibility SET oldest_code = {CODE + 1}")
        return this_version

    @staticmethod
    def refusal(versions: Versions, *arguments: str) -> str:
        process = versions.command(*arguments, old=False)
        assert (process.returncode, process.stdout) == (1, "")
        (line,) = process.stderr.splitlines()
        return line

    def test_each_command_refuses_a_newer_schema(self, newer: Versions, tmp_path: Path) -> None:
        message = (
            f"this kotrain supports schema {CODE}, the database requires {CODE + 1} or newer: install a newer version"
        )
        for line in ("api", "worker", "up --port 0", "migrate", "key ada", f"backup {tmp_path / 'a.tar'}"):
            assert self.refusal(newer, *line.split()) == f"kotrain: {message}", line
        assert newer.query("SELECT version_num FROM alembic_version") == f"{self.NEWER:04}"

    def test_missing_schema_is_refused(self, this_version: Versions) -> None:
        for name in ("api", "worker"):
            assert self.refusal(this_version, name) == "kotrain: the database has no schema yet: run `kotrain migrate`"

    @pytest.mark.usefixtures("open_to_users")
    def test_up_uses_a_newer_schema_that_supports_this_version(self, newer: Versions) -> None:
        newer.execute(f"UPDATE compatibility SET oldest_code = {CODE}")
        arguments = ["service.commands", "up", "--port", "0"]
        with newer.running("up", arguments, old=False) as log:
            until(lambda: "kotrain is running at" in log.read_text())
            url = log.read_text().partition("kotrain is running at ")[2].split()[0]
            answer = httpx2.get(f"{url}/readyz", trust_env=False, timeout=30)
            assert answer.json() == {"status": "ok", "database": "up", "broker": "up"}
        assert newer.query("SELECT version_num FROM alembic_version") == f"{self.NEWER:04}"
