"""One file is read at a time, because that takes as much memory as the data, and by a thread of its own.

Were it one of those that all requests share, a few uploads that wait for another would leave none to anybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from service.errors import Unavailable

Read = TypeVar("Read")

MOST_WAITING = 8
"""Files that have come in and wait to be read."""

_reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
_unread: set[Future[Any]] = set()
"""Those that wait, and the one that is being read."""


def refuse_crowd() -> None:
    """Raise Unavailable where so many files wait that another would wait too long."""
    if len(_unread) > MOST_WAITING:
        raise Unavailable(f"{MOST_WAITING} other files wait to be read already; try again in a while")


async def in_turn(read: Callable[[], Read]) -> Read:
    """What `read` returns, once those that came before are read. Raises Unavailable where too many wait."""
    refuse_crowd()
    reading = _reader.submit(read)
    _unread.add(reading)
    reading.add_done_callback(_unread.discard)
    return await asyncio.wrap_future(reading)
