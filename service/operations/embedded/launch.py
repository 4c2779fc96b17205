"""Run a program that dies with its parent: `python -I -S launch.py PARENT SIGNAL UID GID PROGRAM ARGUMENT...`.

A separate program because `preexec_fn` is unsafe with threads. Standard library only, so that it starts in 20 ms.
UID or GID -1 keeps that of the caller.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # <linux/prctl.h>


def main(parent: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Drop privileges for good, request `death_signal` at the death of the parent, and exec `command`."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):  # Python ignores SIGPIPE, which exec preserves
        signal.signal(ignored, signal.SIG_DFL)
    if gid >= 0:
        os.setgroups([gid])
        os.setgid(gid)
    if uid >= 0:
        os.setuid(uid)
    # After setuid, which clears the first. With the second, no program that is started gains privileges.
    for option, value in ((PR_SET_PDEATHSIG, death_signal), (PR_SET_NO_NEW_PRIVS, 1)):
        if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
            sys.exit(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # the parent died before the request
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    _parent, _signal, _uid, _gid = map(int, sys.argv[1:5])
    main(_parent, _signal, _uid, _gid, sys.argv[5:])
