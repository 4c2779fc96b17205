"""Modules that the forkserver imports once, so that children start in 25 to 33 ms instead of seconds.

The import has two stages. A worker needs torch before it claims anything: without it every job would fail. The training
engine, with torch's compiler, torchvision and scikit-learn, takes longer than torch itself; the forkserver imports it
when the worker is ready, between two forks. Jobs claimed in the meantime wait for it.

This module must not initialize CUDA, which prevents forking, nor run tensor operations or start threads:
locks of other threads would stay locked in every child. Hence the signal, whose handler runs in the only thread.
"""

import contextlib
import os
import signal

from workers import lifetime, machine

FORKSERVER = os.getpid()
ENGINE_WANTED = signal.SIGUSR1


def request_engine() -> None:
    """Ask the forkserver to import the training engine; called in a child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(FORKSERVER, ENGINE_WANTED)


def _import_engine(*_: object) -> None:
    """Import everything that a job needs. If that fails, each job fails with the reason."""
    with contextlib.suppress(ImportError):
        from service.specs.training import TrainSpec  # noqa: PLC0415 (the second stage)
        from workers import child  # noqa: F401, PLC0415

        TrainSpec.model_rebuild()  # its validator would be built by every child


signal.signal(ENGINE_WANTED, _import_engine)
lifetime.die_with_parent()

__all__ = ["machine"]
