"""The connection pool of the process that runs the tests."""

from __future__ import annotations

from sqlalchemy import QueuePool

from service.storage import database
from tests.waiting import until


def close_all() -> None:
    """Close all connections of the pool; those in use, for instance by a thread of a server, when they are returned.

    `dispose` of the engine alone forgets those in use: they are closed by the garbage collector, with a warning.
    """
    if not database.engine.cache_info().currsize:
        return
    pool = database.engine().pool
    database.engine().dispose()
    until(lambda: not isinstance(pool, QueuePool) or pool.checkedout() == 0)
    pool.dispose()
