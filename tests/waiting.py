"""Waits for events in other threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST, LONGEST = 0.01, 0.1
"""Seconds between two checks. The pause grows, because each check takes CPU time from the awaited process."""


def until(condition: Callable[[], object], seconds: float = 60) -> object:
    """Return the value of `condition()` once it is true."""
    deadline = time.monotonic() + seconds
    pause = SHORTEST
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {seconds:g} s"
        time.sleep(pause)
        pause = min(LONGEST, 1.3 * pause)
    return value
