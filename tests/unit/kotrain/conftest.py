"""The real API, in this process, on a database of its own."""

import psycopg
import pytest
from starlette.testclient import TestClient

from kotrain import Client
from service import db, keys
from service.app import create_app
from service.config import settings

DATABASE = "kotrain_sdk"


@pytest.fixture(scope="session")
def http(servers):
    """An HTTP client of the API."""
    place, _, last = servers.database_url.rpartition("/")
    options = last.partition("?")[2]
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATABASE_URL", f"{place}/{DATABASE}?{options}")
        patch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
        settings.cache_clear()
        db.engine.cache_clear()
        db.migrate()
        with TestClient(create_app()) as client:
            yield client
        db.engine().dispose()
    settings.cache_clear()
    db.engine.cache_clear()


@pytest.fixture(scope="session")
def key(http):
    return keys.create("grace")


@pytest.fixture
def client(http, key):
    return Client(http=http, key=key)
