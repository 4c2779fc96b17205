"""What runs on a home, as its files tell; the tools of the same user read them too, without a server's packages."""

from __future__ import annotations

import fcntl
from pathlib import Path

from pydantic import BaseModel, ValidationError


class Running(BaseModel):
    """What `kotrain up` writes to `running.json` while it runs: its address and its process id."""

    url: str
    pid: int


def running(home: Path) -> Running | None:
    """What is written about the stack of this home; None where there is none, or its file is not complete yet."""
    try:
        return Running.model_validate_json((home / "running.json").read_bytes())
    except (OSError, ValidationError):
        return None


def owner(home: Path) -> int | None:
    """The process that `kotrain up` runs in on this home, by the lock that it holds; None where nothing runs.

    The lock is free only once all servers are gone, and a process id without it may be somebody else's by now.
    """
    try:
        with (home / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
    except (OSError, ValueError):
        pass
    return None
