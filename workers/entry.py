"""Entry points of forked processes, importable by the worker without torch; the forkserver has imported it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from workers import lifetime, messages
from workers.messages import Assignment, CodeCheck


def start(errors: Connection, target: Callable[..., None], *args: Any) -> None:
    """Run an entry point in a process that dies with the forkserver, also while it imports the engine.

    Its standard error is this pipe: native code that aborts writes the reason there.
    """
    lifetime.die_with_parent()
    os.dup2(errors.fileno(), 2)
    errors.close()
    target(*args)


def train_job(pipe: Connection, assignment: Assignment) -> None:
    """Train one job."""
    with _engine(pipe):
        if "workers.child" not in sys.modules:  # the forkserver was restarted: have it import the engine for later jobs
            request_engine(pipe)
        from workers import child  # noqa: PLC0415 (700 MB and seconds that the worker itself does not need)
    messages.send(pipe, messages.Ready())
    child.main(pipe, assignment)


def measure_job(pipe: Connection, assignment: Assignment) -> None:
    """Measure the weights that a job with uploaded code left."""
    with _engine(pipe):
        from workers import child  # noqa: PLC0415 (as above)
    messages.send(pipe, messages.Ready())
    child.measure(pipe, assignment)


def check_code(pipe: Connection, check: CodeCheck) -> None:
    """Run the conformance test of uploaded code."""
    with _engine(pipe):
        from workers import child  # noqa: PLC0415 (as above)
    messages.send(pipe, messages.Ready())
    child.check(pipe, check)


def describe_machine(pipe: Connection) -> None:
    """Send torch's version and the GPUs of this host."""
    with _engine(pipe):
        from workers import machine  # noqa: PLC0415 (as above)
    machine.describe(pipe)


def request_engine(pipe: Connection) -> None:
    """Have the forkserver import the training engine, for all children after this one."""
    from workers import preload  # noqa: PLC0415 (as above)

    preload.request_engine()


def check_engine(pipe: Connection) -> None:
    """Send the resident memory of a child that could train a job."""
    with _engine(pipe):
        from workers import child  # noqa: F401, PLC0415 (as above)
        from workers.training import memory  # noqa: PLC0415 (as above)
    messages.send(pipe, messages.EngineMemory(memory.resident()))


@contextmanager
def _engine(pipe: Connection) -> Iterator[None]:
    """Import from the engine; if that fails, send the reason, and end with the traceback on standard error."""
    try:
        from workers import preload  # noqa: PLC0415 (as above)

        preload.check()
        yield
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        messages.send(pipe, messages.NoEngine(f"the training engine cannot be imported: {reason}"))
        raise
