"""Injects faults: a process that hangs in native code, a full disk, a damaged file."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# <linux/ptrace.h>
_POKETEXT, _DETACH, _GETREGSET, _SEIZE, _INTERRUPT = 4, 17, 0x4204, 0x4206, 0x4207
_PRSTATUS = 1  # <elf.h>
_WALL = 0x40000000  # <linux/wait.h>

_MACHINES = {"x86_64": (16, b"\xeb\xfe"), "aarch64": (32, b"\x00\x00\x00\x14")}
"""For each architecture, the index of the instruction pointer and the instruction that jumps to itself."""


class _Registers(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_LIBC.ptrace.restype = ctypes.c_long


def hang(pid: int) -> None:
    """Make a Python process loop for ever in native code while it holds the interpreter's lock.

    As a debugger would: the main thread is halted while it runs the interpreter, so it holds the lock, and its next
    instruction is replaced, in its own memory only, by one that jumps to itself.
    """
    deadline = time.monotonic() + 30
    while not _try_to_hang(pid):
        assert time.monotonic() < deadline, "the process was never halted within the interpreter"
        time.sleep(0.001)


def _try_to_hang(pid: int) -> bool:
    register, loop = _MACHINES[platform.machine()]
    _ptrace(_SEIZE, pid)
    try:
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, _WALL)
        registers = (ctypes.c_uint64 * 64)()
        vector = _Registers(ctypes.addressof(registers), ctypes.sizeof(registers))
        _ptrace(_GETREGSET, pid, _PRSTATUS, ctypes.addressof(vector))
        at = registers[register]
        if not any(start <= at < end for start, end in _interpreter(pid)):
            return False
        word = _word(pid, at)
        _ptrace(_POKETEXT, pid, at, struct.unpack("<q", loop + word[len(loop) :])[0])
        return True
    finally:
        _ptrace(_DETACH, pid)


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _LIBC.ptrace(request, pid, address, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")


def _interpreter(pid: int) -> list[tuple[int, int]]:
    """Address ranges of the interpreter's code in a process."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, *_, file = line.split(maxsplit=5)
        if "x" in rights and re.fullmatch(r"(lib)?python3.*", os.path.basename(file)):
            start, end = (int(address, 16) for address in addresses.split("-"))
            ranges.append((start, end))
    return ranges


def _word(pid: int, address: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(8)


@dataclass
class SmallDisk:
    """A separate disk of a few MiB for one worker.

    Attributes:
        folder: its mount point, as the worker sees it.
        prefix: the program that must run the worker.
    """

    folder: Path
    prefix: Sequence[str]
    _worker_root: str = ""

    def set_worker(self, pid: int) -> None:
        """Set the process id of the worker that was started with the prefix."""
        if self.prefix:
            self._worker_root = f"/proc/{pid}/root"

    @property
    def visible_folder(self) -> Path:
        """The mount point, as this process sees it."""
        return Path(f"{self._worker_root}{self.folder}")

    def fill(self) -> None:
        """Fill the disk to the last byte."""
        with (self.visible_folder / "filling").open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        (self.visible_folder / "filling").unlink()


@contextmanager
def small_disk(folder: Path, mebibytes: int = 8) -> Iterator[SmallDisk]:
    """A small disk on an empty folder: mounted if this process may mount, otherwise in a namespace of the worker."""
    size = f"size={mebibytes}m"
    if _LIBC.mount(b"kotrain-test", os.fsencode(folder), b"tmpfs", 0, size.encode()) == 0:
        try:
            yield SmallDisk(folder, ())
        finally:
            assert _LIBC.umount2(os.fsencode(folder), 2) == 0, "MNT_DETACH failed"
        return
    # Without the right to mount on the machine, a process may still mount in its own user namespace.
    mount = f'mount -t tmpfs -o {size} kotrain-test "$0" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, f"a small disk requires root or user namespaces ({probe.stderr})"
    yield SmallDisk(folder, prefix)


def truncate(file: Path) -> None:
    """Cut a file in half, as a crash of the machine may."""
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    """Flip a bit of a file, as a bad disk may."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        (byte,) = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 0x10]))
