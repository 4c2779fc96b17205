"""The hub of a process's streams: it listens to the database, wakes streams, and shares their reads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.config import settings
from service.errors import Unavailable
from service.storage import database
from service.streams.feed import Delta, Feed

MAX_STREAMS = 1000
"""Maximum number of streams of a process."""
READERS = 4
"""Threads that read for streams, so that other requests keep most of the connections."""
POLL_SECONDS = 0.05
"""Minimum interval of polls."""
PULSE_SECONDS = 1.0
"""Maximum interval of polls. Metrics send no notification, which would halve the rate of their commits."""
MAX_PAUSE_SECONDS = 2.0
"""Maximum interval of attempts to reconnect to the database."""
KEY_SECONDS = 60.0
"""Interval of checks of the listeners' API keys: how long a stream can outlive its key."""
STALL_SECONDS = 30.0
"""Age at which an open transaction that delays the streams of several jobs is logged."""
AWAY = (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError)
"""Errors raised if the database is not reachable."""

CHANNEL = "kotrain_events"
HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# A heartbeat changes `heartbeat_at` and carries all points; any other change increases `seq`.
STATES = "SELECT id, seq, heartbeat_at FROM jobs WHERE id = ANY(%s)"
KEYS = "SELECT id FROM api_keys WHERE id = ANY(%s)"
# Without newer events, no stream is delayed: the horizon is constant because nothing is written.
HELD_UP = """
    SELECT EXISTS (SELECT FROM job_events WHERE xid >= %(horizon)s)
        OR EXISTS (SELECT FROM comparison_events WHERE xid >= %(horizon)s)
"""
READ_ONLY = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

log = logging.getLogger(__name__)


class Listener:
    """An open stream: its feed, the API key it was opened with and its user, and the event that wakes it."""

    def __init__(self, feed: Feed[Any], key_id: UUID, user_id: UUID) -> None:
        self.feed, self.key_id, self.user_id = feed, key_id, user_id
        self.woken = asyncio.Event()
        self.is_refused = False
        """The key was deleted."""


class Hub:
    """All methods run in the event loop; reads run in threads."""

    def __init__(self) -> None:
        self.is_closed = False
        self._listeners: set[Listener] = set()
        self._known: dict[UUID, object] = {}
        self._horizon: int | None = None
        self._horizon_at = 0.0
        self._has_logged_stall = False
        self._keys_at = 0.0
        self.polls = 0
        self._reads: dict[tuple[Any, ...], asyncio.Future[Any]] = {}
        self._readers = ThreadPoolExecutor(READERS, "streams")
        self._watch: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._listeners)

    @contextmanager
    def listening(self, feed: Feed[Any], key_id: UUID, user_id: UUID) -> Iterator[Listener]:
        """Register a stream for the duration of the block. Raises Unavailable if a limit is reached."""
        if self.streams >= MAX_STREAMS:
            raise Unavailable(f"the limit of {MAX_STREAMS} open streams is reached; close some, or try again later")
        limit = settings().max_streams_per_user
        if sum(listener.user_id == user_id for listener in self._listeners) >= limit:
            raise Unavailable(
                f"your limit of {limit} open streams is reached (KOTRAIN_MAX_STREAMS_PER_USER); close some, or try "
                "again later"
            )
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_database())
        listener = Listener(feed, key_id, user_id)
        self._listeners.add(listener)
        job_id = feed.watched()
        if job_id is not None:
            self._known.pop(job_id, None)  # the next poll wakes it, since its first read may be older
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def read(self, feed: Feed[Any], cursor: Any) -> Delta[Any]:
        """`feed.read`, shared by all streams with the same feed and cursor. Raises Unavailable during a shutdown."""
        if self.is_closed:
            raise Unavailable("this server is shutting down; reconnect in a few seconds")
        key = (feed, cursor, self.polls)
        reading = self._reads.get(key)
        if reading is None:
            horizon = self._horizon
            reading = asyncio.get_running_loop().run_in_executor(self._readers, read_delta, feed, cursor, horizon)
            self._reads[key] = reading
            reading.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(reading)  # a stream that closes must not cancel it for the others

    def _forget(self, key: tuple[Any, ...], done: asyncio.Future[Any]) -> None:
        del self._reads[key]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: all its streams may be closed

    def close(self) -> None:
        """End all streams; clients reconnect to another process."""
        self.is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        for listener in self._listeners:
            listener.woken.set()
        self._readers.shutdown(wait=False)

    async def _watch_database(self) -> None:
        pause = 0.1
        while not self.is_closed:
            try:
                async with await _connected() as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._known.clear()  # changes may have been missed
                    while True:
                        await self._poll(connection)
                        pause = 0.1
                        await asyncio.sleep(POLL_SECONDS)
                        async for _ in connection.notifies(timeout=PULSE_SECONDS, stop_after=1):
                            pass
            except psycopg.Error as error:
                log.warning("streams wait for the database: %s", str(error).partition("\n")[0])
            except Exception:  # the open streams would otherwise stall silently
                log.exception("streams wait: polling the database failed, will try again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _poll(self, connection: AsyncConnection[Any]) -> None:
        """Poll: wake the streams of jobs that have changed, and those of several jobs."""
        watched = {job_id for listener in self._listeners if (job_id := listener.feed.watched()) is not None}
        horizon = await (await connection.execute(HORIZON)).fetchone()
        states = await (await connection.execute(STATES, [list(watched)])).fetchall() if watched else []
        assert horizon is not None
        await self._keep_horizon(connection, horizon[0])
        await self._refuse_unknown_keys(connection)
        self.polls += 1
        changed = {job_id for job_id, *state in states if self._known.get(job_id) != state}
        self._known = {job_id: state for job_id, *state in states}
        for listener in self._listeners:
            job_id = listener.feed.watched()
            if job_id is None or job_id in changed or (job_id not in self._known and job_id in watched):
                listener.woken.set()

    async def _keep_horizon(self, connection: AsyncConnection[Any], horizon: int) -> None:
        """Store the oldest open transaction; log it once if it delays streams for long."""
        now = time.monotonic()
        if horizon != self._horizon:
            self._horizon, self._horizon_at, self._has_logged_stall = horizon, now, False
        elif now - self._horizon_at >= STALL_SECONDS and not self._has_logged_stall:
            held_up = await (await connection.execute(HELD_UP, {"horizon": horizon})).fetchone()
            self._has_logged_stall = held_up == (True,)
            if self._has_logged_stall:
                log.warning(
                    "transaction %d has been open for %g s: /v1/events and the streams of comparisons wait for its end;"
                    " find it in pg_stat_activity (backend_xid)",
                    horizon,
                    now - self._horizon_at,
                )

    async def _refuse_unknown_keys(self, connection: AsyncConnection[Any]) -> None:
        """End the streams whose key was deleted, once per `KEY_SECONDS`."""
        now = time.monotonic()
        if now - self._keys_at < KEY_SECONDS:
            return
        key_ids = {listener.key_id for listener in self._listeners}
        rows = await (await connection.execute(KEYS, [list(key_ids)])).fetchall() if key_ids else []
        self._keys_at = now
        unknown = key_ids - {key_id for (key_id,) in rows}
        for listener in self._listeners:
            if listener.key_id in unknown:
                listener.is_refused = True
                listener.woken.set()


async def _connected() -> AsyncConnection[Any]:
    url = settings().database_url
    assert url is not None  # or the first read would have failed
    return await AsyncConnection.connect(url.replace("+psycopg", "", 1), autocommit=True, **database.CONNECTION)


def read_delta(feed: Feed[Any], cursor: Any, horizon: int | None) -> Delta[Any]:
    """As `Feed.read`, in a transaction of its own."""
    with Session(database.engine(), expire_on_commit=False) as session, session.begin():
        session.execute(READ_ONLY)
        return feed.read(session, cursor, horizon)
