"""Confine a process that reads hostile input: no privileges, limited resources, only the files that it needs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # <linux/prctl.h>

# <linux/landlock.h>; the numbers of the system calls are those of all architectures
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = (
    1 << bit for bit in (0, 1, 2, 3, 4, 5, 7, 8)
)
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version -> number of rights to files that exist; others are unknown to the kernel."""
_NETWORK_VERSION, _SCOPE_VERSION = 4, 6


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def limit(seconds: float, memory_bytes: int, file_bytes: int) -> None:
    """Limit the CPU time, the memory and the size of files; the kernel kills this process first if memory runs out."""
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for number, value in limits.items():
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the soft limit of CPU time, SIGXCPU says why the process ends; at the hard one, it is killed.
        most = value + 1 if number == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else value
        resource.setrlimit(number, (value, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def landlock_version() -> int:
    """Version of the kernel's Landlock; below 1 without it."""
    return int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))


def has_landlock() -> bool:
    """Whether the kernel can confine a process to files."""
    return landlock_version() >= 1


def confine(readable: Iterable[Path], writable: Path, devices: Iterable[Path] = ()) -> bool:
    """Gain no privileges, read only in these folders, write only in that one, use no network and reach no process.

    Devices can be opened for reading and writing.

    False if the kernel has no Landlock, so that files are not confined.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    version = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    handled = (1 << _RIGHTS.get(version, max(_RIGHTS.values()))) - 1
    attributes = struct.pack(
        "<QQQ", handled, 3 if version >= _NETWORK_VERSION else 0, 3 if version >= _SCOPE_VERSION else 0
    )
    size = 24 if version >= _SCOPE_VERSION else 16 if version >= _NETWORK_VERSION else 8
    ruleset = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    for folder in {path for path in readable if path.exists()}:
        _allow(ruleset, folder, _READ if folder.is_dir() else _READ & ~_READ_DIR)
    for device in devices:
        _allow(ruleset, device, (_READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL) & handled)
    _allow(ruleset, writable, (_READ | _WRITE | _TRUNCATE) & handled)
    _syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0)
    os.close(descriptor)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
