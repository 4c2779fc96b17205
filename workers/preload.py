"""What the forkserver imports once, so that every child starts with it (25 to 33 ms instead of seconds).

It does so in two stages. A worker needs torch before it claims anything: without it every job would fail. The training
engine, with torch's compiler, torchvision and scikit-learn, takes longer than torch itself; the forkserver imports it
when the worker is ready, between two forks. A job that comes in the meantime waits for it, as it would for its own.

CUDA is not touched here: a process that has done so cannot be forked. No tensor operation runs here either: one that
uses several threads leaves locks behind on which every child hangs. Nor may there be another thread, whose import
would leave its locks behind: hence the signal, whose handler runs in the forkserver's only one.
"""

import contextlib
import os
import signal

from workers import lifetime, machine

FORKSERVER = os.getpid()
ENGINE_WANTED = signal.SIGUSR1


def request_engine() -> None:
    """Have the forkserver import the training engine; called in a child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(FORKSERVER, ENGINE_WANTED)


def _import_engine(*_: object) -> None:
    """Import all that a job needs. Where that fails, each job fails with the reason."""
    with contextlib.suppress(ImportError):
        from service.specs.training import TrainSpec  # noqa: PLC0415 (the second stage)
        from workers import child  # noqa: F401, PLC0415

        TrainSpec.model_rebuild()  # its validator would be built by every child


signal.signal(ENGINE_WANTED, _import_engine)
lifetime.die_with_parent()

__all__ = ["machine"]
