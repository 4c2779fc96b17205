"""Compatibility of the code with older and newer schemas, and with jobs of other engine versions."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import make_url, select, text
from starlette.testclient import TestClient

from service.accounts import api_keys
from service.app import create_app
from service.config import settings
from service.jobs import claims, lookup, submission
from service.jobs.requests import JobRequest
from service.operations.embedded.servers import Embedded
from service.specs.engine import ENGINE_VERSION
from service.specs.states import JobStatus
from service.storage import database, schema_version
from service.storage.schema_version import Incompatible, Schema
from service.storage.tables import Job, User
from tests import connections, forked
from tests.waiting import until

CODE = schema_version.code_number()
REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


@pytest.fixture
def own_database(servers: Embedded, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point this process's settings to an empty database of its own."""
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("CREATE DATABASE compatibility")
        monkeypatch.setenv("KOTRAIN_DATABASE_URL", servers.database_url.replace("/kotrain?", "/compatibility?"))
        monkeypatch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
        connections.forget()
        yield
        connections.forget()
        admin.execute("DROP DATABASE compatibility")


def run(statement: str, **values: object) -> None:
    with database.transaction() as session:
        session.execute(text(statement), values)


def schema() -> Schema | None:
    with database.engine().connect() as connection:
        return schema_version.read(connection)


def create_older_schema() -> None:
    """Create the schema of the previous release."""
    with database.engine().begin() as connection:
        config = schema_version.alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")


def is_table_lock_awaited() -> bool:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
    with database.engine().connect() as connection:
        return bool(connection.scalar(waiting))


def create_newer_schema(oldest_code: int) -> None:
    """Set the version number of a later release, and the oldest code that works with its schema."""
    database.migrate()
    run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
    run("UPDATE compatibility SET oldest_code = :oldest", oldest=oldest_code)


@pytest.mark.usefixtures("own_database")
class TestSchema:
    def test_missing_schema_is_refused(self) -> None:
        assert schema() is None
        with pytest.raises(Incompatible, match="no schema yet: run `kotrain migrate`"):
            database.check_schema()
        database.migrate()
        database.check_schema()

    def test_schema_downgraded_to_nothing_counts_as_missing(self) -> None:
        database.migrate()
        with database.engine().begin() as connection:
            config = schema_version.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        assert schema() is None

    def test_older_schema_is_refused_until_migrated(self) -> None:
        create_older_schema()
        assert schema() == Schema(2, 2)
        with pytest.raises(Incompatible) as refused:
            database.check_schema()
        assert str(refused.value) == f"the database has schema 2, this kotrain requires {CODE}: run `kotrain migrate`"
        database.migrate()
        database.check_schema()

    def test_migration_waits_for_long_transactions_without_blocking_others(self, monkeypatch) -> None:
        create_older_schema()
        monkeypatch.setattr(database, "LOCK_SECONDS", 0.3)
        with ThreadPoolExecutor() as pool, database.engine().connect() as backup:
            backup.execute(text("SELECT count(*) FROM jobs"))
            migration = pool.submit(database.migrate)
            until(is_table_lock_awaited)
            run("SELECT count(*) FROM jobs")
            assert not migration.done()
            backup.rollback()
            migration.result(20)
        database.check_schema()

    def test_unfinished_transaction_leaves_the_schema_unchanged(self, monkeypatch) -> None:
        create_older_schema()
        monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
        monkeypatch.setattr(database, "MIGRATE_TRIES", 3)
        with database.engine().connect() as backup:
            backup.execute(text("SELECT count(*) FROM jobs"))
            with pytest.raises(Incompatible, match="was not changed, because a long transaction"):
                database.migrate()
        assert schema() == Schema(2, 2)

    def test_newer_schema_that_supports_this_code_is_used(self) -> None:
        create_newer_schema(oldest_code=CODE)
        database.check_schema()
        database.migrate()
        assert schema() == Schema(CODE + 2, CODE)

    def test_newer_schema_that_requires_newer_code_is_refused(self) -> None:
        create_newer_schema(oldest_code=CODE + 1)
        for use in (database.check_schema, database.migrate):
            with pytest.raises(Incompatible) as refused:
                use()
            assert str(refused.value) == (
                f"this kotrain supports schema {CODE}, the database requires {CODE + 1} or newer: "
                "install a newer version"
            )
        assert schema() == Schema(CODE + 2, CODE + 1)

    def test_schema_of_another_program_is_refused(self) -> None:
        run("CREATE TABLE alembic_version (version_num text)")
        run("INSERT INTO alembic_version VALUES ('1975ea83b712')")
        for use in (database.check_schema, database.migrate):
            with pytest.raises(Incompatible, match="belongs to another program"):
                use()

    def test_api_is_not_ready_on_a_newer_schema(self) -> None:
        database.migrate()
        with TestClient(create_app()) as client:
            until(lambda: client.get("/readyz").json() == {"status": "ok", "database": "up", "broker": "up"})
            create_newer_schema(oldest_code=CODE + 1)
            until(lambda: client.get("/readyz").status_code == 503)
            answer = client.get("/readyz")
        assert answer.json() == {"status": "down", "database": "incompatible", "broker": "up"}


@pytest.mark.usefixtures("empty")
class TestEngine:
    """Jobs carry the engine version: a newer engine's job would give other results on this one."""

    def submit(self) -> Job:
        with database.transaction() as session:
            owner = session.scalars(select(User)).one()
            return submission.submit(session, owner, JobRequest.model_validate(REQUEST))

    def claim(self) -> claims.Claim | None:
        with database.transaction() as session:
            return claims.claim(session, "w1", has_cuda=False)

    def test_job_of_a_newer_engine_waits_and_others_run(self) -> None:
        api_keys.create("ada")
        newer, own = self.submit(), self.submit()
        assert own.engine_version == ENGINE_VERSION
        run("UPDATE jobs SET engine_version = :newer WHERE id = :id", newer=ENGINE_VERSION + 1, id=newer.id)
        with database.transaction() as session:
            assert claims.count_eligible(session, 10, has_cuda=False) == 1
        claimed = self.claim()
        assert claimed is not None
        assert claimed.job_id == own.id
        assert self.claim() is None
        with database.transaction() as session:
            assert lookup.get(session, newer.id).status == JobStatus.QUEUED
            assert claims.count_eligible(session, 10, has_cuda=False) == 0

    def test_job_of_an_older_engine_is_trained(self) -> None:
        api_keys.create("ada")
        older = self.submit()
        run("UPDATE jobs SET engine_version = :older WHERE id = :id", older=ENGINE_VERSION - 1, id=older.id)
        claimed = self.claim()
        assert claimed is not None
        assert claimed.job_id == older.id


def test_migrate_waits_for_the_database(own_database: None, tmp_path: Path) -> None:
    url = make_url(str(settings().database_url))
    folder = tmp_path / "sockets"
    late = url.update_query_dict({"host": str(folder)}).render_as_string(hide_password=False)
    environment = os.environ | {"KOTRAIN_DATABASE_URL": late}
    with forked.Forked("kotrain", "migrate", env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("kotrain: waiting for the database (KOTRAIN_DATABASE_URL): conn")
        folder.symlink_to(str(url.query["host"]))
        assert process.wait(60) == 0
    now = schema()
    assert now is not None
    assert now.number == CODE


def test_migrate_does_not_wait_for_a_database_that_does_not_exist(own_database: None) -> None:
    missing = make_url(str(settings().database_url)).set(database="missing").render_as_string(hide_password=False)
    failed = forked.run("kotrain", "migrate", env=os.environ | {"KOTRAIN_DATABASE_URL": missing})
    assert failed.returncode == 1
    assert 'database "missing" does not exist' in failed.stderr
