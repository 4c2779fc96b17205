"""The home: the folder where a running stack leaves its address and its owner's key for the tools of the same user."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

DEFAULT_URL = "http://127.0.0.1:8000"


class Running(BaseModel):
    """What `kotrain up` writes to `running.json` while it runs: its address and its process id."""

    url: str
    pid: int


def folder() -> Path:
    """`KOTRAIN_HOME`; by default `~/.kotrain`, and `/var/lib/kotrain` for root."""
    chosen = os.environ.get("KOTRAIN_HOME")
    if chosen:
        return Path(chosen)
    return Path("/var/lib/kotrain") if os.geteuid() == 0 else Path.home() / ".kotrain"


def running(home: Path) -> Running | None:
    """What is written about the stack of this home; None where there is none, or its file is not complete yet."""
    try:
        return Running.model_validate_json((home / "running.json").read_bytes())
    except (OSError, ValidationError):
        return None


def key(home: Path) -> str | None:
    """The owner's key; None where there is none, or it is not ours to read."""
    try:
        return (home / "key").read_text().strip() or None
    except OSError:
        return None


def address() -> str:
    """`KOTRAIN_URL`, else that of the stack that runs from the home, else the default one."""
    from_home = running(folder())
    return os.environ.get("KOTRAIN_URL") or (from_home.url if from_home else DEFAULT_URL)


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
