"""The database: the engine, `transaction()` (the one place that commits) and migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

import migrations
from service import queue
from service.config import settings


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The process's connection pool; a connection that the server closed meanwhile is replaced unseen."""
    url = settings().database_url
    if url is None:
        raise RuntimeError("KOTRAIN_DATABASE_URL is not set")
    return create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 3,
            "application_name": "kotrain",
            "options": "-c timezone=UTC",
            # A network that swallows packets is noticed within ten seconds, half a lease.
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block, or rolls back on an exception; then rings the bells asked for."""
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for bell in session.info.get("bells", ()):
            queue.ring(bell)


def per_request() -> Iterator[Session]:
    """`transaction()` as a FastAPI dependency; with `scope="function"` it commits before the answer goes out."""
    with transaction() as session:
        yield session


def ring_after_commit(session: Session, bell: str) -> None:
    """Ask for a bell that rings once the job it announces can be seen."""
    session.info.setdefault("bells", []).append(bell)


def migrate() -> None:
    """Bring the schema to the newest version; safe to run at the same time from several hosts."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine().begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('kotrain.migrate'))"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_up() -> bool:
    """Whether the database answers a query."""
    with engine().connect() as connection:
        return bool(connection.scalar(text("SELECT 1")))
