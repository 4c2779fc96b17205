"""The migrations make what the models say, keep what is there, and can be undone."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from service.config import settings
from service.operations.embedded import programs
from service.storage import database, schema_version
from service.storage.tables import Base
from tests.waiting import until

SPEC = {"dataset": {"name": "digits"}, "seed": 0, "device": "cpu", "target": None, "stop_at_target": False}
JOB = text(
    """
    INSERT INTO public.jobs (id, user_id, spec, dataset, model, optimizer, needs_cuda, tags, priority, max_failures,
                             status, cancel_requested, attempt, failures, seq, step)
    SELECT gen_random_uuid(), id, CAST(:spec AS jsonb), 'digits', 'mlp', 'adam', false, '{}', 0, 3, 'queued', false, 0,
           0, 1, 0
    FROM public.users
    """
)
PRINTS = text("SELECT (spec ->> 'seed')::int, fingerprint, setting FROM public.jobs ORDER BY 1, 2")


@pytest.fixture
def connection(servers):
    """A database of its own, empty."""
    with create_engine(servers.database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as admin:
        admin.execute(text("CREATE DATABASE migrations"))
        engine = create_engine(servers.database_url.replace("/kotrain?", "/migrations?"), poolclass=NullPool)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_database()")) == "migrations"
            yield connection
        admin.execute(text("DROP DATABASE migrations"))


@pytest.fixture
def config(connection):
    config = schema_version.alembic()
    config.attributes["connection"] = connection
    return config


def test_the_schema_equals_the_models(connection, config):
    command.upgrade(config, "head")
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    assert compare_metadata(context, Base.metadata) == []


def test_code_number_is_the_newest_migration(config):
    assert ScriptDirectory.from_config(config).get_current_head() == f"{schema_version.code_number():04}"


def test_downgrade_leaves_nothing_and_upgrade_works_again(connection, config):
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    assert inspect(connection).get_table_names() == ["alembic_version"]
    assert inspect(connection).get_view_names() == []
    command.upgrade(config, "head")
    assert "jobs" in inspect(connection).get_table_names()


@pytest.fixture
def filled(connection, config):
    """Three jobs as 0001 stored them, of two seeds; the schema is the newest."""
    command.upgrade(config, "0001")
    connection.execute(text("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ada')"))
    for fields in ({}, {"device": "cuda", "target": {"value": 0.9}}, {"seed": 1}):
        connection.execute(JOB, {"spec": json.dumps(SPEC | fields)})
    connection.commit()
    command.upgrade(config, "head")
    connection.commit()
    return connection


def test_older_jobs_get_fingerprints(filled):
    (_, one, setting), (_, same, of_same), (_, other, of_other) = filled.execute(PRINTS).all()
    assert one == same != other
    assert setting == of_same == of_other
    assert filled.scalar(text("SELECT bool_and(is_direct AND data_stamp IS NULL) FROM jobs"))


def test_jobs_can_be_written_without_a_search_path(filled):
    filled.execute(text("SET search_path = ''"))
    filled.execute(text("""UPDATE public.jobs SET spec = spec || '{"seed": 7}'"""))
    filled.execute(JOB, {"spec": json.dumps(SPEC)})
    assert [row[0] for row in filled.execute(PRINTS)] == [0, 7, 7, 7]


def test_data_survives_downgrade_and_upgrade(filled, config):
    jobs = text("SELECT to_jsonb(jobs) - '{engine_version,memory_limit_bytes}'::text[] FROM jobs ORDER BY id")
    assert filled.scalars(text("SELECT DISTINCT engine_version FROM jobs")).all() == [2]
    before = filled.scalars(jobs).all()
    for steps in ("0002", "head"):
        (command.downgrade if steps == "0002" else command.upgrade)(config, steps)
        filled.commit()
        assert filled.scalars(jobs).all() == before
    assert filled.scalars(text("SELECT DISTINCT engine_version FROM jobs")).all() == [2]
    assert schema_version.read(filled) == schema_version.Schema(schema_version.code_number(), 2)


def test_a_dump_can_be_restored(filled, servers, home):
    """The embedded server's own tools, where they can be run."""
    binaries = programs.find(home, None).postgres.parent
    dump, psql = binaries / "pg_dump", binaries / "psql"
    if not (dump.exists() and psql.exists()):
        pytest.skip("the wheel has no pg_dump or psql")
    before = filled.execute(PRINTS).all()
    filled.commit()
    url = servers.database_url.replace("postgresql+psycopg://", "postgresql://")
    source, target = (url.replace("/kotrain?", f"/{name}?") for name in ("migrations", "restored"))
    script = subprocess.run([dump, "-d", source], capture_output=True, text=True, check=True).stdout
    with create_engine(servers.database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as admin:
        admin.execute(text("CREATE DATABASE restored"))
        try:
            restored = subprocess.run(
                [psql, "-v", "ON_ERROR_STOP=1", "-d", target], input=script, capture_output=True, text=True
            )
            assert restored.returncode == 0, restored.stderr
            engine = create_engine(servers.database_url.replace("/kotrain?", "/restored?"), poolclass=NullPool)
            with engine.connect() as copy:
                assert copy.execute(PRINTS).all() == before
        finally:
            admin.execute(text("DROP DATABASE restored"))


# --- while others are at work ---------------------------------------------------------------------------------------


@pytest.fixture
def configured(connection, config, monkeypatch):
    """What `db.migrate` migrates: the same database, of version 0003."""
    command.upgrade(config, "0003")
    connection.commit()
    monkeypatch.setenv("KOTRAIN_DATABASE_URL", connection.engine.url.render_as_string(hide_password=False))
    settings.cache_clear()
    database.engine.cache_clear()
    yield
    database.engine().dispose()
    settings.cache_clear()
    database.engine.cache_clear()


@pytest.mark.parametrize(
    ("first", "then", "tries"),
    [
        ("comparisons", "job_events", 1),  # as a comparison that is made, or ended, takes them
        ("job_events", "comparisons", 2),
    ],
)
def test_open_transactions_survive_migration_0004(connection, configured, monkeypatch, caplog, first, then, tries):
    monkeypatch.setattr(database, "LOCK_SECONDS", 1.5)  # longer than PostgreSQL waits before it looks for a deadlock
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with database.engine().connect() as at_work, ThreadPoolExecutor(1) as thread:
        at_work.execute(text(f"LOCK TABLE {first} IN ROW EXCLUSIVE MODE"))
        migrating = thread.submit(database.migrate)
        until(lambda: connection.scalar(waiting))
        at_work.execute(text(f"LOCK TABLE {then} IN ROW EXCLUSIVE MODE"))
        at_work.commit()
        migrating.result(60)
    assert len([record for record in caplog.records if "migration postponed" in record.message]) == tries - 1
    assert schema_version.read(connection).number == schema_version.code_number()


# --- expand first, contract later ------------------------------------------------------------------------------------


def columns(connection) -> dict[tuple[str, str], dict]:
    seen = inspect(connection)
    return {(table, found["name"]): found for table in seen.get_table_names() for found in seen.get_columns(table)}


TELL = ("comparisons.comparisons_record", "job_events.job_events_notify")
"""Triggers that refuse no row and change none: they tell those who listen (`service.streams`)."""


def conditions(connection) -> dict[str, str]:
    """What rows have to meet: checks, unique and foreign keys, unique indexes and triggers, by name and table."""
    kinds = """
        SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u', 'x')
        UNION ALL
        SELECT indrelid::regclass || '.' || indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indisunique AND indrelid::regclass::text IN (SELECT tablename FROM pg_tables WHERE schemaname = 'public')
        UNION ALL
        SELECT tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    """
    found = dict(connection.execute(text(kinds)).all())
    return {name: definition for name, definition in found.items() if name not in TELL}


def contractions(connection, change) -> list[str]:
    """What a change of the schema takes away from code that knows the schema before it."""
    before, rules, views = columns(connection), conditions(connection), set(inspect(connection).get_view_names())
    change()
    after, found = columns(connection), []
    known_tables = {table for table, _ in before}
    for (table, name), column in before.items():
        now = after.get((table, name))
        if now is None:
            found.append(f"{table}.{name} is gone or has another name")
        elif str(now["type"]) != str(column["type"]):
            found.append(f"{table}.{name} has another type")
        elif column["nullable"] and not now["nullable"]:
            found.append(f"{table}.{name} may no longer be null")
        elif column["default"] and not now["default"]:
            found.append(f"{table}.{name} has lost its default")
    for table, name in after.keys() - before.keys():
        column = after[table, name]
        filled_in = (
            column["nullable"]
            or column["default"] is not None
            or "computed" in column
            or column["autoincrement"] is True
        )
        if table in known_tables and not filled_in:
            found.append(f"{table}.{name} is new and wants a value")
    for name, definition in conditions(connection).items():
        if name.partition(".")[0] in known_tables and rules.get(name) != definition:
            found.append(f"{name} is a new or another condition")
    found += [f"the view {name} is gone" for name in views - set(inspect(connection).get_view_names())]
    return sorted(found)


NEWEST = schema_version.code_number()


@pytest.mark.parametrize("number", range(3, NEWEST + 1))
def test_contracting_migration_raises_oldest_code(connection, config, number):
    """CONTRIBUTING.md, Database. Running code that cannot work with the new schema must learn so from the schema."""
    command.upgrade(config, f"{number - 1:04}")
    before = schema_version.read(connection)
    taken = contractions(connection, lambda: command.upgrade(config, f"{number:04}"))
    after = schema_version.read(connection)
    assert before.oldest_code <= after.oldest_code <= number
    assert not taken or after.oldest_code > before.oldest_code, taken
    command.downgrade(config, f"{number - 1:04}")
    assert schema_version.read(connection) == before


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("ALTER TABLE jobs DROP COLUMN data_stamp", ["jobs.data_stamp is gone or has another name"]),
        (
            "ALTER TABLE jobs RENAME step TO steps",
            ["jobs.step is gone or has another name", "jobs.steps is new and wants a value"],
        ),
        ("DROP TABLE checkpoints", None),
        ("ALTER TABLE jobs RENAME TO runs", None),
        ("DROP VIEW metric_points", ["the view metric_points is gone"]),
        ("ALTER TABLE jobs ADD COLUMN pool text NOT NULL", ["jobs.pool is new and wants a value"]),
        ("ALTER TABLE jobs ALTER message SET NOT NULL", ["jobs.message may no longer be null"]),
        ("ALTER TABLE jobs ALTER created_at DROP DEFAULT", ["jobs.created_at has lost its default"]),
        ("ALTER TABLE jobs ALTER attempt TYPE bigint", ["jobs.attempt has another type"]),
        ("ALTER TABLE jobs ADD CONSTRAINT sane CHECK (priority < 9)", ["jobs.sane is a new or another condition"]),
        ("CREATE UNIQUE INDEX one_host ON workers (host)", ["workers.one_host is a new or another condition"]),
        (
            "CREATE TRIGGER sane BEFORE INSERT ON jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ["jobs.sane is a new or another condition"],
        ),
        ("ALTER TABLE jobs ADD COLUMN pool text", []),
        ("ALTER TABLE jobs ADD COLUMN pool text NOT NULL DEFAULT 'gpu'", []),
        ("ALTER TABLE jobs ADD COLUMN twice int GENERATED ALWAYS AS (attempt * 2) STORED", []),
        ("ALTER TABLE jobs ALTER dataset DROP NOT NULL", []),
        ("CREATE TABLE pools (name text PRIMARY KEY)", []),
        ("CREATE INDEX by_worker ON jobs (worker_id)", []),
    ],
)
def test_contracting_statements_are_detected(connection, config, statement, found):
    command.upgrade(config, "head")
    noticed = contractions(connection, lambda: connection.execute(text(statement)))
    assert noticed if found is None else noticed == found
    connection.rollback()
