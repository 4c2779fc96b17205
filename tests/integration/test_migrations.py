"""The migrations make what the models say, and can be undone."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

import migrations
from service.models import Base


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
