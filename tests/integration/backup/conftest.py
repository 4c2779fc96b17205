"""Fixtures of these tests."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.config import settings
from service.jobs import queue
from service.jobs.claims import Claim
from service.operations.backup import backup
from service.operations.embedded.servers import Embedded
from service.storage import database
from service.storage.files import store
from tests.integration.backup.installations import Place, fill


@pytest.fixture
def places(servers: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Place, Place]]:
    """Where a backup is made and where it goes; both empty. The first is entered."""
    monkeypatch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
    names = ("backup_source", "backup_target")
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}")
        here, there = (
            Place(servers.database_url.replace("/kotrain?", f"/{name}?"), tmp_path / name, monkeypatch)
            for name in names
        )
        here.enter()
        yield here, there
        database.engine().dispose()
        for made in (settings, database.engine, queue.celery, store):
            made.cache_clear()
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def filled(places: tuple[Place, Place]) -> Claim:
    """The first place is filled; the claim of its running job."""
    return fill()


@pytest.fixture
def made(filled: Claim, tmp_path: Path) -> Path:
    """A backup of that."""
    backup.create(tmp_path / "a.tar")
    return tmp_path / "a.tar"
