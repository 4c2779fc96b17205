"""The migrations make what the models say, keep what is there, and can be undone."""

import json
import subprocess
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

import migrations
from service.embedded import programs
from service.models import Base

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
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def test_the_schema_equals_the_models(connection, config):
    command.upgrade(config, "head")
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    assert compare_metadata(context, Base.metadata) == []


def test_down_leaves_nothing_and_up_works_again(connection, config):
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


def test_jobs_from_before_are_known_by_what_they_train(filled):
    (_, one, setting), (_, same, of_same), (_, other, of_other) = filled.execute(PRINTS).all()
    assert one == same != other
    assert setting == of_same == of_other
    assert filled.scalar(text("SELECT bool_and(is_direct AND data_stamp IS NULL) FROM jobs"))


def test_jobs_can_be_written_without_a_search_path(filled):
    filled.execute(text("SET search_path = ''"))
    filled.execute(text("""UPDATE public.jobs SET spec = spec || '{"seed": 7}'"""))
    filled.execute(JOB, {"spec": json.dumps(SPEC)})
    assert [row[0] for row in filled.execute(PRINTS)] == [0, 7, 7, 7]


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
