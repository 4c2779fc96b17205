"""Fixtures of tests against the real servers: an empty schema, and the API on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from service import db, keys, queue
from service.app import create_app
from service.config import settings
from service.embedded import Embedded


def _forget() -> None:
    """Settings, pool and Celery application are made anew from the environment."""
    if db.engine.cache_info().currsize:
        db.engine().dispose()
    for made in (settings, db.engine, queue.celery):
        made.cache_clear()


@pytest.fixture(scope="module")
def schema(servers: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process's settings point to the servers, and the tables are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATABASE_URL", servers.database_url)
        patch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
        patch.setenv("KOTRAIN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("KOTRAIN_LEASE_SECONDS", "2")
        _forget()
        db.migrate()
        yield
        _forget()
    _forget()


@pytest.fixture
def empty(schema: None) -> None:
    """No user, no job, no bell in the queue."""
    with db.transaction() as session:
        session.execute(text("TRUNCATE users, workers CASCADE"))
    queue.celery().control.purge()


@pytest.fixture
def key(empty: None) -> str:
    """The API key of the user `ada`."""
    return keys.create("ada")


@pytest.fixture
def api(key: str) -> Iterator[TestClient]:
    """The API, called as `ada`."""
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client
