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
"""The database's time, the only one that counts."""
LOCK_SECONDS, MIGRATE_TRIES = 3, 20
"""How long a migration waits for a table, much less than a lease, and how often it tries: two minutes in all."""
CONNECTION: dict[str, Any] = {
    "connect_timeout": 3,
    "application_name": "kotrain",
    # Whoever stands still within a transaction (a frozen API, a host without power) keeps its locks no longer.
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60s",
    # A network that swallows packets is noticed within ten seconds, half a lease.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""How each connection to the database is made."""
# A restored database knows transactions of another server, which would all seem to come yet.
FORGET_TRANSACTIONS = [
    text(f"UPDATE {table} SET xid = NULL WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    for table in ("job_events", "comparison_events")
]


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The process's connection pool; a connection that the server closed meanwhile is replaced unseen."""
    url = settings().database_url
    if url is None:
        raise RuntimeError("KOTRAIN_DATABASE_URL is not set")
    made = create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args=CONNECTION,
    )
    event.listen(made, "handle_error", _leave_a_standby)
    return made


def _leave_a_standby(context: ExceptionContext) -> None:
    """A server that has become read-only counts as away: its address may lead to another one by the next try."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


def storable(message: str) -> str:
    """The text without what Postgres cannot hold: NUL, and halves of surrogate pairs from file names."""
    return message.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def limit_lock_wait(session: Session) -> None:
    """Wait for nobody's lock longer than a second in this transaction; `is_locked` then says of the error that it was
    for that."""
    session.execute(text("SET LOCAL lock_timeout = '1s'"))


def is_locked(error: Exception) -> bool:
    """Whether somebody else kept a lock longer than this transaction was willing to wait."""
    return isinstance(getattr(error, "orig", error), LockNotAvailable)


def tag_connections(worker_id: str, idle_seconds: float) -> None:
    """Name this process's connections, and have the database end transactions that wait for it longer than this.

    A process that is frozen within one would keep its rows locked, and nobody could take its jobs back; one that is
    frozen while it sends data is no case for a time limit, so that others have to know it by its name
    (`service.jobs.heartbeats.end_stale_transactions`).
    """

    @event.listens_for(engine(), "connect")
    def introduce(connection: Connection, _: object) -> None:
        connection.execute("SELECT set_config('application_name', %s, false)", [connection_name(worker_id)])
        connection.execute(f"SET idle_in_transaction_session_timeout = {max(1, round(1000 * idle_seconds))}")
        connection.commit()


def connection_name(worker_id: str) -> str:
    """What PostgreSQL calls a worker's connections; it keeps 63 bytes, and the end of an id tells workers apart."""
    return f"kotrain {worker_id[-55:]}"


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block, or rolls back on an exception.

    Functions passed to `call_after_commit` run once the commit has succeeded.
    """
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for function in session.info.get("after_commit", ()):
            function()


def driver_connection(session: Session) -> Connection[Any]:
    """The psycopg connection of a session, for COPY and binary cursors."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, Connection)
    return connection


def per_request() -> Iterator[Session]:
    """`transaction()` as a FastAPI dependency; with `scope="function"` it commits before the answer goes out."""
    with transaction() as session:
        yield session


def call_after_commit(session: Session, function: Callable[[], object]) -> None:
    """Call `function` after this session's transaction has committed; not at all if it rolls back."""
    session.info.setdefault("after_commit", []).append(function)


def migrate() -> None:
    """Bring the schema to the newest version; safe to run at the same time from several hosts, and while jobs run.

    A newer schema that this code can work with stays as it is.

    Raises:
        Incompatible: this code cannot work with the schema, or others used its tables for two minutes.
    """
    for _ in range(MIGRATE_TRIES):
        try:
            _migrate()
        except OperationalError as error:
            if not (is_locked(error) or isinstance(error.orig, DeadlockDetected)):
                raise
            log.warning("a long transaction uses the tables that are to change, will try again")
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
        # Whoever waits for a table has all others wait behind, so that heartbeats would stop, too.
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        for statement in FORGET_TRANSACTIONS:
            connection.execute(statement)


def is_read_only() -> bool:
    """Whether the database takes no changes: a standby, or a server that was told to."""
    with engine().connect() as connection:
        return bool(connection.scalar(text("SELECT current_setting('transaction_read_only')::bool")))


def check_schema() -> None:
    """Raise `Incompatible`, with what to do, unless this code can work with the database's schema."""
    with engine().connect() as connection:
        schema_version.check(connection)
