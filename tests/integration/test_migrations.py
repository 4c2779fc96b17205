"""The migrations create the models' schema, keep the data, and can be reverted."""

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

from service.operations.embedded import programs
from service.storage import database, schema_version
from service.storage.tables import Base
from tests import connections
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
    """A connection to an empty database of its own."""
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


def test_schema_equals_the_models(connection, config):
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
    """Three jobs of two seeds, stored under schema 0001 and migrated to the newest one."""
    command.upgrade(config, "0001")
    connection.execute(text("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ada')"))
    for fields in ({}, {"device": "cuda", "target": {"value": 0.9}}, {"seed": 1}):
        connection.execute(JOB, {"spec": json.dumps(SPEC | fields)})
    connection.commit()
    command.upgrade(config, "head")
    connection.commit()
    return connection


def test_older_jobs_get_fingerprints(filled):
    (_, first, setting), (_, equal, equal_setting), (_, other, other_setting) = filled.execute(PRINTS).all()
    assert first == equal != other
    assert setting == equal_setting == other_setting
    assert filled.scalar(text("SELECT bool_and(is_direct AND data_stamp IS NULL) FROM jobs"))


def test_jobs_can_be_written_without_a_search_path(filled):
    filled.execute(text("SET search_path = ''"))
    filled.execute(text("""UPDATE public.jobs SET spec = spec || '{"seed": 7}'"""))
    filled.execute(JOB, {"spec": json.dumps(SPEC)})
    assert [row[0] for row in filled.execute(PRINTS)] == [0, 7, 7, 7]


def test_data_survives_downgrade_and_upgrade(filled, config):
    added = "{engine_version,memory_limit_bytes,name,note,archived_at}"
    jobs = text(f"SELECT to_jsonb(jobs) - '{added}'::text[] FROM jobs ORDER BY id")
    assert filled.scalars(text("SELECT DISTINCT engine_version FROM jobs")).all() == [2]
    before = filled.scalars(jobs).all()
    for steps in ("0002", "head"):
        (command.downgrade if steps == "0002" else command.upgrade)(config, steps)
        filled.commit()
        assert filled.scalars(jobs).all() == before
    assert filled.scalars(text("SELECT DISTINCT engine_version FROM jobs")).all() == [2]
    assert schema_version.read(filled) == schema_version.Schema(schema_version.code_number(), 2)


def test_dump_can_be_restored(filled, servers, home):
    """With the embedded server's own tools, if they are installed."""
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


# --- concurrent transactions ------------------------------------------------------------------------------------------


@pytest.fixture
def configured(connection, config, monkeypatch):
    """Point `database.migrate` to the same database, at version 0003."""
    command.upgrade(config, "0003")
    connection.commit()
    monkeypatch.setenv("KOTRAIN_DATABASE_URL", connection.engine.url.render_as_string(hide_password=False))
    connections.forget()
    yield
    connections.forget()


@pytest.mark.parametrize(
    ("first", "then", "tries"),
    [
        ("comparisons", "job_events", 1),  # the order in which comparisons lock them when they start or end
        ("job_events", "comparisons", 2),
    ],
)
def test_open_transactions_survive_migration_0004(connection, configured, monkeypatch, caplog, first, then, tries):
    monkeypatch.setattr(database, "LOCK_SECONDS", 1.5)  # longer than PostgreSQL's deadlock_timeout
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with database.engine().connect() as other, ThreadPoolExecutor(1) as thread:
        # Who looks for a deadlock first is its victim: without this, `other` may be it on a busy machine.
        other.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        other.execute(text(f"LOCK TABLE {first} IN ROW EXCLUSIVE MODE"))
        migrating = thread.submit(database.migrate)
        until(lambda: connection.scalar(waiting))
        other.execute(text(f"LOCK TABLE {then} IN ROW EXCLUSIVE MODE"))
        other.commit()
        migrating.result(60)
    assert len([record for record in caplog.records if "migration postponed" in record.message]) == tries - 1
    assert schema_version.read(connection).number == schema_version.code_number()


# --- expand first, contract later ------------------------------------------------------------------------------------


def columns(connection) -> dict[tuple[str, str], dict]:
    schema = inspect(connection)
    return {
        (table, column["name"]): column for table in schema.get_table_names() for column in schema.get_columns(table)
    }


NOTIFIERS = ("comparisons.comparisons_record", "job_events.job_events_notify")
"""Triggers that refuse and change no row: they only notify listeners (`service.streams`)."""


def conditions(connection) -> dict[str, str]:
    """The conditions on rows: checks, unique and foreign keys, unique indexes and triggers, by table and name."""
    kinds = """
        SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u', 'x')
        UNION ALL
        SELECT indrelid::regclass || '.' || indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indisunique AND indrelid::regclass::text IN (SELECT tablename FROM pg_tables WHERE schemaname = 'public')
        UNION ALL
        SELECT tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    """
    definitions = dict(connection.execute(text(kinds)).all())
    return {name: definition for name, definition in definitions.items() if name not in NOTIFIERS}


def contractions(connection, change) -> list[str]:
    """Changes of the schema that break code written for the schema before them."""
    before, rules, views = columns(connection), conditions(connection), set(inspect(connection).get_view_names())
    change()
    after, problems = columns(connection), []
    known_tables = {table for table, _ in before}
    for (table, name), column in before.items():
        changed = after.get((table, name))
        if changed is None:
            problems.append(f"{table}.{name} was removed or renamed")
        elif str(changed["type"]) != str(column["type"]):
            problems.append(f"{table}.{name} has another type")
        elif column["nullable"] and not changed["nullable"]:
            problems.append(f"{table}.{name} may no longer be null")
        elif column["default"] and not changed["default"]:
            problems.append(f"{table}.{name} has lost its default")
    for table, name in after.keys() - before.keys():
        column = after[table, name]
        is_optional = (
            column["nullable"]
            or column["default"] is not None
            or "computed" in column
            or column["autoincrement"] is True
        )
        if table in known_tables and not is_optional:
            problems.append(f"{table}.{name} is new and requires a value")
    for name, definition in conditions(connection).items():
        if name.partition(".")[0] in known_tables and rules.get(name) != definition:
            problems.append(f"{name} is a new or changed condition")
    problems += [f"the view {name} was removed" for name in views - set(inspect(connection).get_view_names())]
    return sorted(problems)


NEWEST = schema_version.code_number()


@pytest.mark.parametrize("number", range(3, NEWEST + 1))
def test_contracting_migration_raises_oldest_code(connection, config, number):
    """Running code that cannot work with the new schema must learn so from the schema (CONTRIBUTING.md, Database)."""
    command.upgrade(config, f"{number - 1:04}")
    before = schema_version.read(connection)
    problems = contractions(connection, lambda: command.upgrade(config, f"{number:04}"))
    after = schema_version.read(connection)
    assert before.oldest_code <= after.oldest_code <= number
    assert not problems or after.oldest_code > before.oldest_code, problems
    command.downgrade(config, f"{number - 1:04}")
    assert schema_version.read(connection) == before


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE jobs DROP COLUMN data_stamp", ["jobs.data_stamp was removed or renamed"]),
        (
            "ALTER TABLE jobs RENAME step TO steps",
            ["jobs.step was removed or renamed", "jobs.steps is new and requires a value"],
        ),
        ("DROP TABLE checkpoints", None),
        ("ALTER TABLE jobs RENAME TO runs", None),
        ("DROP VIEW metric_points", ["the view metric_points was removed"]),
        ("ALTER TABLE jobs ADD COLUMN pool text NOT NULL", ["jobs.pool is new and requires a value"]),
        ("ALTER TABLE jobs ALTER message SET NOT NULL", ["jobs.message may no longer be null"]),
        ("ALTER TABLE jobs ALTER created_at DROP DEFAULT", ["jobs.created_at has lost its default"]),
        ("ALTER TABLE jobs ALTER attempt TYPE bigint", ["jobs.attempt has another type"]),
        ("ALTER TABLE jobs ADD CONSTRAINT sane CHECK (priority < 9)", ["jobs.sane is a new or changed condition"]),
        ("CREATE UNIQUE INDEX one_host ON workers (host)", ["workers.one_host is a new or changed condition"]),
        (
            "CREATE TRIGGER sane BEFORE INSERT ON jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ["jobs.sane is a new or changed condition"],
        ),
        ("ALTER TABLE jobs ADD COLUMN pool text", []),
        ("ALTER TABLE jobs ADD COLUMN pool text NOT NULL DEFAULT 'gpu'", []),
        ("ALTER TABLE jobs ADD COLUMN twice int GENERATED ALWAYS AS (attempt * 2) STORED", []),
        ("ALTER TABLE jobs ALTER dataset DROP NOT NULL", []),
        ("CREATE TABLE pools (name text PRIMARY KEY)", []),
        ("CREATE INDEX by_worker ON jobs (worker_id)", []),
    ],
)
def test_contracting_statements_are_detected(connection, config, statement, expected):
    command.upgrade(config, "head")
    problems = contractions(connection, lambda: connection.execute(text(statement)))
    assert problems if expected is None else problems == expected
    connection.rollback()
