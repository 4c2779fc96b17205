"""The database: the engine, `transaction()` (the one place that commits) and migrations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from psycopg import Connection
from psycopg.errors import DeadlockDetected, LockNotAvailable, ReadOnlySqlTransaction
from sqlalchemy import Engine, ExceptionContext, create_engine, event, func, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.config import settings
from service.storage import schema_version
from service.storage.schema_version import Incompatible

log = logging.getLogger(__name__)

NOW = func.clock_timestamp()
"""The database's clock, the only one used for stored times."""
LOCK_SECONDS, MIGRATE_TRIES = 3, 20
"""How long a migration waits for a lock, much less than a lease, and how often it tries: two minutes in total."""
CONNECTION: dict[str, Any] = {
    "connect_timeout": 3,
    "application_name": "kotrain",
    # A process that freezes within a transaction (a stopped API, a host without power) loses its locks after a minute.
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60s",
    # A network that drops packets is noticed within ten seconds, half a lease.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Parameters of each connection."""
# In a restored database, transaction ids are those of another server and may be higher than the current one.
FORGET_TRANSACTIONS = [
    text(f"UPDATE {table} SET xid = NULL WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    for table in ("job_events", "comparison_events")
]


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The process's connection pool. Connections that the server has closed are replaced."""
    url = settings().database_url
    if url is None:
        raise RuntimeError("KOTRAIN_DATABASE_URL is not set")
    new = create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args=CONNECTION,
    )
    event.listen(new, "handle_error", _disconnect_from_standby)
    return new


def _disconnect_from_standby(context: ExceptionContext) -> None:
    """Drop connections to a server that has become read-only: its address may soon lead to the new primary."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


def storable(message: str) -> str:
    """The text with characters escaped that PostgreSQL cannot store: NUL, and lone surrogates from file names."""
    return message.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def limit_lock_wait(session: Session) -> None:
    """Wait at most a second for each lock in this transaction; `is_locked` recognizes the error."""
    session.execute(text("SET LOCAL lock_timeout = '1s'"))


def is_locked(error: Exception) -> bool:
    """Whether the error is a lock wait that exceeded the limit of the transaction."""
    return isinstance(getattr(error, "orig", error), LockNotAvailable)


def tag_connections(worker_id: str, idle_seconds: float) -> None:
    """Name this process's connections after the worker, and limit how long their transactions may be idle.

    A process that is frozen within a transaction would keep its rows locked, so that its jobs could not be reclaimed.
    The limit does not apply to one that is frozen while sending data; other workers end its transaction by its name
    (`service.jobs.heartbeats.end_stale_transactions`).
    """

    @event.listens_for(engine(), "connect")
    def introduce(connection: Connection, _: object) -> None:
        connection.execute("SELECT set_config('application_name', %s, false)", [connection_name(worker_id)])
        connection.execute(f"SET idle_in_transaction_session_timeout = {max(1, round(1000 * idle_seconds))}")
        connection.commit()


def connection_name(worker_id: str) -> str:
    """The `application_name` of a worker's connections: 63 bytes at most, of which the end of the id is unique."""
    return f"kotrain {worker_id[-55:]}"


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block, or rolls back on an exception.

    Functions passed to `call_after_commit` run once the commit has succeeded. Their errors are logged: the block has
    succeeded.
    """
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for function in session.info.get("after_commit", ()):
            try:
                function()
            except Exception:
                log.exception("after the commit, %r failed", function)


def driver_connection(session: Session) -> Connection[Any]:
    """The psycopg connection of a session, for COPY and binary cursors."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, Connection)
    return connection


def per_request() -> Iterator[Session]:
    """`transaction()` as a FastAPI dependency; with `scope="function"` it commits before the response is sent."""
    with transaction() as session:
        yield session


def call_after_commit(session: Session, function: Callable[[], object]) -> None:
    """Call `function` after this session's transaction has committed; not at all if it rolls back."""
    session.info.setdefault("after_commit", []).append(function)


def migrate() -> None:
    """Upgrade the schema to the newest version; safe to run from several hosts at a time, and while jobs run.

    A newer schema that allows this code is left unchanged.

    Raises:
        Incompatible: the schema does not allow this code, or its tables were locked for two minutes.
    """
    for _ in range(MIGRATE_TRIES):
        try:
            _migrate()
        except OperationalError as error:
            if not (is_locked(error) or isinstance(error.orig, DeadlockDetected)):
                raise
            log.warning("migration postponed: a long transaction holds locks on the tables")
            time.sleep(LOCK_SECONDS)
        else:
            return
    raise Incompatible(
        "the schema was not changed, because a long transaction (a backup?) uses its tables: "
        "find it in pg_stat_activity, end it, and run `kotrain migrate` again"
    )


def _migrate() -> None:
    from alembic import command  # noqa: PLC0415 (0.1 s that only a migration needs)

    config = schema_version.alembic()
    with engine().begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('kotrain.migrate'))"))
        schema = schema_version.read(connection)
        if schema is not None and schema.number > schema_version.code_number():
            schema_version.refuse_newer(schema)
            return
        # A migration that waits for a lock blocks all later ones, so that heartbeats would stop.
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        for statement in FORGET_TRANSACTIONS:
            connection.execute(statement)


def is_read_only() -> bool:
    """Whether the database is read-only: a standby, or a server configured so."""
    with engine().connect() as connection:
        return bool(connection.scalar(text("SELECT current_setting('transaction_read_only')::bool")))


def check_schema() -> None:
    """Raise Incompatible, with a remedy, unless the database's schema allows this code."""
    with engine().connect() as connection:
        schema_version.check(connection)
