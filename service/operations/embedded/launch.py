"""Run a program that dies with its parent: `python -I -S launch.py PARENT SIGNAL IDS PROGRAM ARGUMENT...`.

IDS is the user, the group and further groups of the program, separated by commas, and whether it may read all files (1)
or not (0): "UID,0,GID,GID...". Empty, it keeps the caller's.

A separate program because `preexec_fn` is unsafe with threads. Standard library only, so that it starts in 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 38, 47  # <linux/prctl.h>
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_READ_SEARCH = 2  # <linux/capability.h>: read all files, enter all folders
CAPABILITY_VERSION_3 = 0x20080522
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(parent: int, death_signal: int, ids: str, command: list[str]) -> None:
    """Drop privileges for good, request `death_signal` at the death of the parent, and exec `command`."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):  # Python ignores SIGPIPE, which exec preserves
        signal.signal(ignored, signal.SIG_DFL)
    if ids:
        _become(*map(int, ids.split(",")))
    # After setuid, which clears the first. With the second, no program that is started gains privileges.
    _call("prctl", PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the request
        sys.exit(1)
    os.execv(command[0], command)


def _become(uid: int, reads_all: int, *gids: int) -> None:
    """Change to another user, which takes all capabilities away but the one to read, if it is wanted."""
    os.setgroups(gids)
    os.setgid(gids[0])
    if not reads_all:
        os.setuid(uid)
        return
    _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setuid(uid)
    kept = 1 << CAP_DAC_READ_SEARCH
    _call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)(kept, kept, kept))
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0)


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        sys.exit(f"{name}({arguments[0]}) failed: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    _parent, _signal = map(int, sys.argv[1:3])
    main(_parent, _signal, sys.argv[3], sys.argv[4:])
