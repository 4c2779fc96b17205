"""What the process that runs the tests keeps of an installation (settings, connections, queue and file store), and the
statements that it sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, QueuePool, event

from service.config import settings
from service.jobs import queue
from service.storage import database
from service.storage.files import store
from tests.waiting import until


def forget() -> None:
    """Close all connections and discard everything; the environment defines the next settings."""
    engine = database.engine() if database.engine.cache_info().currsize else None
    close_all()
    for cached in (settings, database.engine, queue.celery, store):
        cached.cache_clear()
    if engine is not None:  # a thread may have taken a connection after the last look
        _close(engine)


def close_all() -> None:
    """Close all connections of the engine; those in use, for instance by a thread of a server, when they are returned.

    `dispose` of the engine alone forgets those in use: they are closed by the garbage collector, with a warning. Then
    it has a new pool, from which such a thread may take another connection.
    """
    if database.engine.cache_info().currsize:
        _close(database.engine())


def _close(engine: Engine) -> None:
    while True:
        pool = engine.pool
        engine.dispose(close=False)  # a new pool; a pool that has been disposed no longer counts what is in use
        if not isinstance(pool, QueuePool):
            return
        until(lambda pool=pool: pool.checkedout() == 0)
        pool.dispose()
        if engine.pool.checkedout() + engine.pool.checkedin() == 0:  # type: ignore[attr-defined] # a QueuePool
            return


@contextmanager
def statements(engine: Engine | None = None) -> Iterator[list[tuple[str, Any]]]:
    """The statements executed inside the block, with their parameters; of the settings' database unless given."""
    engine = engine or database.engine()
    executed: list[tuple[str, Any]] = []

    def record(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        executed.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", record)
