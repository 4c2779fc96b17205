"""Isolate a process that runs uploaded code from everything but its job.

The process gets namespaces of its own (users, network, IPC, processes), in which it is process 1: it sees, signals and
traces no process but its own, and all of them end with it. Landlock limits its files, a filter of system calls keeps it
from sockets and from the kernel's rarely used parts, limits bound the rest. It keeps the libraries that the forkserver
has imported, which a new program would import anew for seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.datasets.uploads import confinement

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_NETWORK, _NEW_IPC, _NEW_PROCESSES = 0x10000000, 0x40000000, 0x08000000, 0x20000000  # <linux/sched.h>
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 22, 2  # <linux/prctl.h>
_CAPABILITY_VERSION, _CAP_DAC_READ_SEARCH = 0x20080522, 2  # <linux/capability.h>

_LANDLOCK_VERSION = 3
"""The first that covers truncation (Linux 6.2)."""
MAX_THREADS = 512
"""Threads and processes of a job."""
MAX_OPEN_FILES = 256
MAX_FILE_BYTES = 2**34
"""Size of a file; checkpoints are the largest."""

# --- system calls ----------------------------------------------------------------------------------------------------

_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # name: (number on x86_64, number on aarch64)
    "socket": (41, 198),  # else it could reach databases whose socket is a file
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    # a pair of sockets may also send to others
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # modes, owners, attributes and times of files, which Landlock leaves to their owner
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
_PRCTL, _PR_SET_PDEATHSIG = (157, 167), 1
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, <linux/audit.h>
_X32 = 0x40000000  # numbers of the x32 system calls begin here
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # <linux/bpf_common.h>
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | 1  # <linux/seccomp.h>; EPERM


def _program() -> bytes:
    """The filter: forbidden system calls, and all of other architectures, fail with EPERM."""
    column, architecture = _MACHINES[platform.machine()]
    numbers = [number for numbers in _FORBIDDEN.values() if (number := numbers[column]) is not None]
    deny = len(numbers) + 9  # index of the last instruction
    lines: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_JUMP_EQUAL, 0, deny - 2, architecture),
        (_LOAD, 0, 0, 0),  # the number
        (_JUMP_AT_LEAST, deny - 4, 0, _X32),
    ]
    lines += [(_JUMP_EQUAL, deny - len(lines) - index - 1, 0, number) for index, number in enumerate(numbers)]
    lines += [  # neither the signal at the death of its parent may be changed, nor whether its memory can be measured
        (_JUMP_EQUAL, 0, 3, _PRCTL[column]),
        (_LOAD, 0, 0, 16),  # the first argument
        (_JUMP_EQUAL, 2, 0, _PR_SET_PDEATHSIG),
        (_JUMP_EQUAL, 1, 0, _PR_SET_DUMPABLE),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    assert len(lines) == deny + 1
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _filter_system_calls() -> None:
    program = ctypes.create_string_buffer(_program())
    header = struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program))
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


# --- files -----------------------------------------------------------------------------------------------------------

_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/opt/cuda",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/sys/devices/system",
    "/sys/module/nvidia",
    "/proc/driver/nvidia",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/vmstat",
    "/proc/version",
    "/proc/sys/vm",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_PACKAGES = ("service", "workers", "ko", "kotrain", "migrations")
"""kotrain's own, which may be outside the libraries' folders."""


def _readable() -> set[Path]:
    """Interpreter, libraries, and what they read of the system."""
    own = [Path(__file__).resolve().parents[2] / name for name in _PACKAGES]
    libraries = [Path(sysconfig.get_paths()[name]) for name in _PATHS]
    # torch's compiler starts Python and a C++ compiler.
    python = [Path(sys.prefix, name) for name in ("bin", "pyvenv.cfg", "include")]
    python += [Path(sys.base_prefix, name) for name in ("bin", "lib", "include")]
    return {*map(Path, _SYSTEM), *libraries, *python, *own}


@dataclass(frozen=True)
class Limits:
    """What an isolated process may use."""

    readable: tuple[Path, ...]
    """Files and folders of its job."""
    writable: Path
    """The folder of its job, which exists."""
    keep: tuple[int, ...]
    """File descriptors that stay open, beside standard error."""
    has_gpu: bool = False
    """Whether it may open GPUs."""


# --- isolation -------------------------------------------------------------------------------------------------------


def isolate(limits: Limits) -> None:
    """Continue in a new process that is isolated; the calling process waits for its end and ends in the same way.

    To be called before the process has started a thread. Raises OSError if the kernel lacks the means.
    """
    _close_other_files(limits.keep)
    _unshare()
    child = os.fork()
    if child:
        _end_like(child)
    confinement.die_with_parent()
    _limit()
    _confine(limits)


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEW_USER | _NEW_NETWORK | _NEW_IPC | _NEW_PROCESSES) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) != 0:  # else its files in /proc belong to root
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")  # of this one: no further ones inside


def _end_like(child: int) -> None:
    """Wait for the child and end with its status, or by its signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(child, 0)
            break
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)


def _close_other_files(keep: Iterable[int]) -> None:
    """Close all files but those in `keep` and standard error; standard input and output become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    kept = {0, 1, 2, *keep}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(int(name))


def _limit() -> None:
    limits = {
        resource.RLIMIT_NPROC: MAX_THREADS,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for number, value in limits.items():
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def _confine(limits: Limits) -> None:
    own_process = Path(f"/proc/{os.readlink('/proc/self')}")  # its number outside the namespace
    devices = [Path(os.devnull), own_process, *(Path("/dev").glob("nvidia*") if limits.has_gpu else ())]
    readable = {*_readable(), *limits.readable, own_process}
    if not confinement.confine(readable, limits.writable, devices):
        raise OSError("the kernel has no Landlock")
    folder = str(limits.writable)
    os.environ.update(TMPDIR=folder, HOME=folder, USER="code", LOGNAME="code")
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=f"{folder}/inductor", TRITON_CACHE_DIR=f"{folder}/triton")
    tempfile.tempdir = None  # else that of the forkserver
    os.chdir(limits.writable)
    _drop_capabilities()
    _filter_system_calls()


def _drop_capabilities() -> None:
    """Drop those that the process has in its own namespaces."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    if _LIBC.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


_is_possible = False


def _reads_everything() -> bool:
    """Whether this process reads files with a capability, which an isolated process loses."""
    (effective,) = re.findall(r"(?m)^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())
    return bool(int(effective, 16) >> _CAP_DAC_READ_SEARCH & 1)


def missing() -> str | None:
    """Why processes cannot be isolated on this machine; None if they can."""
    global _is_possible  # it stays so; a failure may have passed when this is called again
    problem = None if _is_possible else _try()
    _is_possible = problem is None
    return problem


def _try() -> str | None:
    if platform.machine() not in _MACHINES:
        return f"kotrain has no filter of system calls for {platform.machine()}"
    if confinement.landlock_version() < _LANDLOCK_VERSION:
        return "the kernel has no Landlock, or one older than that of Linux 6.2"
    program = (
        "import os, tempfile; from pathlib import Path; from service.code import isolation\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    isolation.isolate(isolation.Limits((), Path(folder), ()))\n"
        "    os._exit(0)"
    )
    tried = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return None
    if os.geteuid() != 0 and _reads_everything():
        return "Python or kotrain can be read by root only: install them where all users can read them"
    return (tried.stderr.strip().splitlines() or [f"a try ended with status {tried.returncode}"])[-1]
