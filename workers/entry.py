"""Entry points of the forked processes. The worker names them without loading torch; the forkserver has loaded it."""

from __future__ import annotations

from multiprocessing.connection import Connection

from workers.messages import Assignment


def train_job(pipe: Connection, assignment: Assignment) -> None:
    """Train one job."""
    from workers import child  # noqa: PLC0415 (only here: 700 MB and seconds that the worker itself need not spend)

    child.main(pipe, assignment)


def describe_machine(pipe: Connection) -> None:
    """Send the GPUs of this host."""
    from workers import child  # noqa: PLC0415 (as above)

    child.describe_machine(pipe)
