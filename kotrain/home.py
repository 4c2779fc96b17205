"""The home: the folder in which a running stack stores its address and its owner's key for the same user's tools."""

from __future__ import annotations

import os
from pathlib import Path

from service.home import Running, default_home, owner, running, url_of

__all__ = ["Running", "address", "folder", "key", "owner", "running", "running_now"]


def folder() -> Path:
    """`KOTRAIN_HOME`; by default `~/.kotrain`, and `/var/lib/kotrain` for root."""
    path = os.environ.get("KOTRAIN_HOME")
    return Path(path) if path else default_home()


def running_now(home: Path) -> Running | None:
    """The run file of this home if the process that it names runs and holds the lock of the home, else None.

    After a crash the file remains, and another user may listen at its address. The lock alone does not show it: servers
    that outlive the process for a moment hold it, too.
    """
    stack = running(home)
    is_current = stack is not None and stack.pid == owner(home) and _is_alive(stack.pid)
    return stack if is_current else None


def key(home: Path) -> str | None:
    """The owner's key; None if it is missing or not readable."""
    try:
        return (home / "key").read_text().strip() or None
    except OSError:
        return None


def _is_alive(process: int) -> bool:
    """Whether a process of this user has this id."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def address() -> str:
    """`KOTRAIN_URL`, else that of the stack running from the home, else where a stack of these settings would run."""
    from_home = running(folder())
    return os.environ.get("KOTRAIN_URL") or (from_home.url if from_home else _of_settings())


def _of_settings() -> str:
    """The address by `KOTRAIN_HOST` and `KOTRAIN_PORT`; by default http://127.0.0.1:8000, as for port 0 (any)."""
    port = os.environ.get("KOTRAIN_PORT", "").lstrip("0") or "8000"
    return url_of(os.environ.get("KOTRAIN_HOST") or "127.0.0.1", port)
