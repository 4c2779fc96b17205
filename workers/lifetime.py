"""Child processes die with their parent: worker -> forkserver -> child, so that a killed worker leaves none behind."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


PARENT = "KOTRAIN_WORKER_PROCESS"
"""Variable with the process id of the worker, for its forkserver."""


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies. Linux only; no effect elsewhere.

    Without `parent`, its process id, a process whose parent has died before the call outlives it.
    """
    prctl = getattr(_LIBC, "prctl", None)
    if prctl is None:
        return
    parent = parent or os.getppid()
    if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # the parent died before the call
        os.kill(os.getpid(), signal.SIGKILL)
