"""Modules that the forkserver imports once, so that children start in 25 to 33 ms instead of seconds.

The import has two stages. A worker needs torch before it claims anything: without it every job would fail. The training
engine, with torch's compiler, torchvision and scikit-learn, takes longer than torch itself; the forkserver imports it
when the worker is ready, between two forks. Jobs claimed in the meantime wait for it. If it fails, the worker stops.

This module must not initialize CUDA, which prevents forking, nor run tensor operations or start threads:
locks of other threads would stay locked in every child. Hence the signal, whose handler runs in the only thread.
"""

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from workers import lifetime

FORKSERVER = os.getpid()
ENGINE_WANTED = signal.SIGUSR1

_error: BaseException | None = None


def request_engine() -> None:
    """Ask the forkserver to import the training engine; called in a child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(FORKSERVER, ENGINE_WANTED)


def check() -> None:
    """Raise the error of an import that failed in the forkserver; called in a child.

    To import a partly imported library again may raise another error, or none.
    """
    if _error is not None:
        raise _error


@contextmanager
def _importing() -> Iterator[None]:
    """Keep any exception for `check`: one that left this module would end the forkserver and all its children.

    Garbage collections would take a seventh of the time and find next to nothing. The modules' objects are then
    excluded from all later collections, which would copy the memory that holds them into every child.
    """
    global _error
    gc.disable()
    try:
        yield
    except BaseException as error:
        _error = error
    finally:
        gc.freeze()
        gc.enable()


def _import_engine(*_: object) -> None:
    """Import everything that a job needs, once."""
    signal.signal(ENGINE_WANTED, signal.SIG_IGN)
    with _importing():
        from service.specs.training import TrainSpec  # noqa: PLC0415 (the second stage)
        from workers import child  # noqa: F401, PLC0415
        from workers.training.readers import read_digits  # noqa: PLC0415

        # What every child, or every child that trains on the digits, would do anew.
        TrainSpec.model_rebuild()
        read_digits()


# First: the worker may be killed while this process imports torch, or before.
lifetime.die_with_parent(int(os.environ.get(lifetime.PARENT, 0)))
with _importing():
    from workers import machine  # noqa: F401

signal.signal(ENGINE_WANTED, _import_engine)
os.register_at_fork(after_in_child=lambda: signal.signal(ENGINE_WANTED, signal.SIG_DFL))
