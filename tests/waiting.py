"""Waiting for what happens in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST, LONGEST = 0.01, 0.1
"""Seconds between two looks, which get rarer: looking costs what is waited for a part of the machine."""


def until(condition: Callable[[], object], seconds: float = 60) -> object:
    """What `condition` answers, once that is true."""
    deadline = time.monotonic() + seconds
    pause = SHORTEST
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
        pause = min(LONGEST, 1.3 * pause)
    return value
