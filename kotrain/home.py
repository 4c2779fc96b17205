"""The home: the folder in which a running stack stores its address and its owner's key for the same user's tools."""

from __future__ import annotations

import os
from pathlib import Path

from service.home import LOOPBACK, Running, default_home, owner, running

__all__ = ["LOOPBACK", "Running", "address", "folder", "key", "owner", "running"]

DEFAULT_URL = "http://127.0.0.1:8000"


def folder() -> Path:
    """`KOTRAIN_HOME`; by default `~/.kotrain`, and `/var/lib/kotrain` for root."""
    path = os.environ.get("KOTRAIN_HOME")
    return Path(path) if path else default_home()


def key(home: Path) -> str | None:
    """The owner's key; None if it is missing or not readable."""
    try:
        return (home / "key").read_text().strip() or None
    except OSError:
        return None


def address() -> str:
    """`KOTRAIN_URL`, else the address of the stack running from the home, else `DEFAULT_URL`."""
    from_home = running(folder())
    return os.environ.get("KOTRAIN_URL") or (from_home.url if from_home else DEFAULT_URL)
