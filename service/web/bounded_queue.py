"""A bounded queue of work with its own thread.

On the shared thread pool of requests, a few slow items would block all other requests.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from service.errors import Unavailable

Result = TypeVar("Result")


class BoundedQueue:
    """Runs work on one thread, in order of arrival.

    Args:
        name: name of the thread.
        max_waiting: maximum number of waiting items, besides the one that runs.
        items: plural noun for the items in the error message.
    """

    def __init__(self, name: str, max_waiting: int, items: str) -> None:
        self.max_waiting = max_waiting
        self._items = items
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._unfinished: set[Future[Any]] = set()

    def __len__(self) -> int:
        """Number of items that wait or run."""
        return len(self._unfinished)

    def raise_if_full(self) -> None:
        """Raise Unavailable if no further item may wait."""
        if len(self) > self.max_waiting:
            raise Unavailable(
                f"the queue of {self._items} is full ({self.max_waiting} waiting); try again in a few seconds"
            )

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Add work to the queue. Raises Unavailable if it is full."""
        self.raise_if_full()
        future = self._thread.submit(work)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future
