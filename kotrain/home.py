"""The home: the folder in which a running stack stores its address and its owner's key for the same user's tools."""

from __future__ import annotations

import os
from pathlib import Path

from service.operations.run_file import Running, owner, running

__all__ = ["Running", "address", "folder", "key", "owner", "running"]

DEFAULT_URL = "http://127.0.0.1:8000"


def folder() -> Path:
    """`KOTRAIN_HOME`; by default `~/.kotrain`, and `/var/lib/kotrain` for root."""
    path = os.environ.get("KOTRAIN_HOME")
    if path:
        return Path(path)
    return Path("/var/lib/kotrain") if os.geteuid() == 0 else Path.home() / ".kotrain"


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
