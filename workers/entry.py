"""Entry points of forked processes, importable by the worker without torch; the forkserver has imported it."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from workers.messages import Assignment


def train_job(pipe: Connection, assignment: Assignment) -> None:
    """Train one job."""
    if "workers.child" not in sys.modules:  # the forkserver was restarted: have it import the engine for later jobs
        request_engine(pipe)
    from workers import child  # noqa: PLC0415 (700 MB and seconds that the worker itself does not need)

    child.main(pipe, assignment)


def describe_machine(pipe: Connection) -> None:
    """Send torch's version and the GPUs of this host."""
    from workers import machine  # noqa: PLC0415 (as above)

    machine.describe(pipe)


def request_engine(pipe: Connection) -> None:
    """Have the forkserver import the training engine, for all children after this one."""
    from workers import preload  # noqa: PLC0415 (as above)

    preload.request_engine()
