"""The home of a local installation: its folder, run file and lock; for server and SDK, so it imports no server code."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that mean this machine."""


def url_of(host: str, port: int | str) -> str:
    """The URL at which clients on this machine reach an API that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def default_home() -> Path:
    """Default folder of an embedded installation: its database, files, logs and key."""
    return Path("/var/lib/kotrain") if os.geteuid() == 0 else Path.home() / ".kotrain"


class Running(BaseModel):
    """Content of `running.json`, which exists while `kotrain up` runs: its address, process id and settings."""

    url: str
    pid: int
    settings: dict[str, Any] = {}
    """By field of `service.config.Settings`, without the addresses of servers, which contain passwords."""


def running(home: Path) -> Running | None:
    """The run file of this home; None if it is missing or incomplete."""
    try:
        return Running.model_validate_json((home / "running.json").read_bytes())
    except (OSError, ValidationError):
        return None


def owner(home: Path) -> int | None:
    """Process id of the `kotrain up` that holds the lock of this home; None if none does.

    The lock is released only when all servers have ended. A process id without the lock may have been reused since.
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
