"""Two installations, the contents of the first, and a backup of it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.jobs.claims import Claim
from service.operations.backup import backup
from service.operations.embedded.servers import Embedded
from tests import connections
from tests.integration.backup.installations import Installation, fill


@pytest.fixture
def installations(
    servers: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Installation, Installation]]:
    """The source and the target of a backup, both empty; the source is active."""
    monkeypatch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
    names = ("backup_source", "backup_target")
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}")
        source, target = (
            Installation(servers.database_url.replace("/kotrain?", f"/{name}?"), tmp_path / name, monkeypatch)
            for name in names
        )
        source.activate()
        yield source, target
        connections.forget()
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def target(installations: tuple[Installation, Installation]) -> Installation:
    """The installation into which backups are restored."""
    return installations[1]


@pytest.fixture
def filled(installations: tuple[Installation, Installation]) -> Claim:
    """Fill the source; return the claim of its running job."""
    return fill()


@pytest.fixture
def backup_file(filled: Claim, tmp_path: Path) -> Path:
    """A backup of the source."""
    backup.create(tmp_path / "a.tar")
    return tmp_path / "a.tar"
