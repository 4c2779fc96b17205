"""Lines of work that waits for one thread of its own.

Were it one of the threads that all requests share, a few who wait in line would leave none to anybody else.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from service.errors import Unavailable

Result = TypeVar("Result")


class Line:
    """One thing after the other, in the order in which it came; not more than `most_waiting` besides the one in work.

    Args:
        name: of the thread.
        most_waiting: how many may wait.
        crowd: what the refusal says of those that do.
    """

    def __init__(self, name: str, most_waiting: int, crowd: str) -> None:
        self.most_waiting = most_waiting
        self._crowd = crowd
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._undone: set[Future[Any]] = set()

    @property
    def length(self) -> int:
        """How many wait, with the one in work."""
        return len(self._undone)

    def refuse_crowd(self) -> None:
        """Raise Unavailable where one more would wait too long."""
        if self.length > self.most_waiting:
            raise Unavailable(f"{self.most_waiting} {self._crowd} already; try again in a few seconds")

    def put(self, work: Callable[[], Result]) -> Future[Result]:
        """Add to the line. Raises Unavailable where too many wait."""
        self.refuse_crowd()
        waiting = self._thread.submit(work)
        self._undone.add(waiting)
        waiting.add_done_callback(self._undone.discard)
        return waiting
