"""Ways to hurt: a process that hangs in native code, a disk without room, a file that has changed."""

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
"""Which of its registers points to the next instruction, and the instruction that jumps to itself."""


class _Registers(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_LIBC.ptrace.restype = ctypes.c_long


def hang(pid: int) -> None:
    """Have a Python process loop for ever in native code while it holds the interpreter's lock: nothing in it goes on.

    What a debugger does: its main thread is halted where it runs the interpreter, hence holds the lock, and the
    instruction that comes next is replaced, in its own memory only, by one that jumps to itself.
    """
    deadline = time.monotonic() + 30
    while not _try_to_hang(pid):
        assert time.monotonic() < deadline, "it was never met in the interpreter"
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
    """Where the interpreter's own code lies in a process."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, *_, file = line.split(maxsplit=5)
        if "x" in rights and re.fullmatch(r"(lib)?python3.*", os.path.basename(file)):
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append((start, end))
    return found


def _word(pid: int, address: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(8)


@dataclass
class SmallDisk:
    """A disk of a few MiB of its own, for one worker.

    Attributes:
        folder: where that worker sees it.
        prefix: the program that has to run the worker.
    """

    folder: Path
    prefix: Sequence[str]
    _seen_through: str = ""

    def belongs_to(self, pid: int) -> None:
        """The worker that was started with the prefix."""
        if self.prefix:
            self._seen_through = f"/proc/{pid}/root"

    @property
    def here(self) -> Path:
        """Where we see it."""
        return Path(f"{self._seen_through}{self.folder}")

    def fill(self) -> None:
        """Leave not one byte free."""
        with (self.here / "filling").open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        (self.here / "filling").unlink()


@contextmanager
def small_disk(folder: Path, mebibytes: int = 8) -> Iterator[SmallDisk]:
    """A small disk at an empty folder: mounted where we may mount, else in a namespace of the worker's own."""
    size = f"size={mebibytes}m"
    if _LIBC.mount(b"kotrain-test", os.fsencode(folder), b"tmpfs", 0, size.encode()) == 0:
        try:
            yield SmallDisk(folder, ())
        finally:
            assert _LIBC.umount2(os.fsencode(folder), 2) == 0, "MNT_DETACH failed"
        return
    # Whoever may not mount on the machine still may for himself alone.
    mount = f'mount -t tmpfs -o {size} kotrain-test "$0" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"no small disk can be made here: as root, or with user namespaces ({done.stderr})"
    yield SmallDisk(folder, prefix)


def truncate(file: Path) -> None:
    """What a crash of a machine leaves of a file."""
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    """What a bad disk makes of a file."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        (byte,) = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 0x10]))
