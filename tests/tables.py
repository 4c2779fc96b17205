"""Empties the tables of the schema that tests share."""

from psycopg.errors import DeadlockDetected
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.storage import database
from service.storage.tables import Base, Compatibility, MetricName
from tests.waiting import until

_KEPT = {MetricName.__tablename__, Compatibility.__tablename__}
_FILLED = [table.name for table in Base.metadata.sorted_tables if table.name not in _KEPT]
# DELETE, because TRUNCATE creates a new file for every table and index: 65 ms of CPU instead of 2. A replica fires no
# triggers, so that foreign keys do not matter.
_CLEAR = "; ".join(["SET LOCAL session_replication_role = replica", *(f"DELETE FROM {name}" for name in _FILLED)])


def clear() -> None:
    """Delete all rows but the names of metrics, which processes cache, and the row that the migrations wrote."""
    until(lambda: _execute(_CLEAR))


def clear_jobs() -> None:
    """Delete all jobs and what belongs to them."""
    until(lambda: _execute("TRUNCATE jobs CASCADE"))


def _execute(statements: str) -> bool:
    """Execute statements, or return False if a running worker holds locks in another order.

    PostgreSQL cancels the session that looks for the deadlock first: this one, so that the worker is not disturbed.
    """
    try:
        with database.transaction() as session:
            session.execute(text(f"SET LOCAL deadlock_timeout = '100ms'; {statements}"))
    except OperationalError as error:
        if not isinstance(error.orig, DeadlockDetected):
            raise
        return False
    return True
