"""A job's process: forked from the forkserver, watched over a pipe, killed with its whole process group."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workers import entry

_FORKSERVER = multiprocessing.get_context("forkserver")
_REAPING = threading.Lock()
"""`start()` polls the processes of other threads, so without it exit codes race (703 of 2,282 were wrong)."""


HALF_A_MESSAGE_SECONDS = 30
"""A child that has begun a message and says no more of it for so long was stopped within it, and is killed."""


class Process:
    """A running child."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.pipe, theirs = _FORKSERVER.Pipe()
        _limit_waiting(self.pipe)
        self._process = _FORKSERVER.Process(target=target, args=(theirs, *args), daemon=False)
        self._oom_kills = _kernel_oom_kills()
        with _REAPING:
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id, which is the process group's id too."""
        assert self._process.pid is not None
        return self._process.pid

    def messages(self, timeout_seconds: float, *, listens: bool = True) -> tuple[list[Any], bool]:
        """Whatever arrives within the timeout, and whether the child is gone and has nothing more to say.

        Where nobody `listens` a living child has to wait, once the pipe is full.
        """
        ready = wait([self._process.sentinel, *([self.pipe] if listens else [])], timeout_seconds)
        received: list[Any] = []
        if listens or ready:
            try:
                while self.pipe.poll():
                    received.append(self.pipe.recv())
            except BlockingIOError:
                self.kill()  # what follows in the pipe could not be read any more
            except (EOFError, OSError):
                pass
        return received, self._process.sentinel in ready and not received

    def ask(self, wish: str) -> None:
        """Let the training loop end after its current step: `messages.CANCEL` or `messages.PAUSE`."""
        with contextlib.suppress(OSError):
            self.pipe.send(wish)

    def takes_more_than(self, memory_bytes: int) -> bool:
        """Whether the child and all that it started take more of the machine's memory than this.

        What they share is counted in parts, which the kernel takes long to tell (it walks through all pages), so it is
        asked only where their resident sizes, which count it in full, are together beyond the limit.
        """
        with contextlib.suppress(psutil.Error):
            child = psutil.Process(self.pid)
            all_of_it = [child, *child.children(recursive=True)]
            if _sum(all_of_it, lambda process: process.memory_info().rss) > memory_bytes:
                return _sum(all_of_it, lambda process: process.memory_full_info().pss) > memory_bytes
        return False

    def kill(self) -> None:
        """Kill the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError), _REAPING:
            self._process.kill()

    def reap(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end; the exit status, negative for a signal; None where it does not end in time."""
        if not wait([self._process.sentinel], timeout_seconds):
            return None
        with _REAPING:
            self._process.join()
            code: int | None = self._process.exitcode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it started and left behind
        self.pipe.close()
        return code

    def was_killed_for_memory(self, code: int | None) -> bool:
        """Whether the kernel's out-of-memory killer struck while this child ran and a SIGKILL ended it."""
        return code == -signal.SIGKILL and _kernel_oom_kills() > self._oom_kills


def _limit_waiting(pipe: Connection) -> None:
    """Have a read that has begun and gets nothing more fail with BlockingIOError: it would wait without end."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", HALF_A_MESSAGE_SECONDS, 0))


def _sum(processes: list[psutil.Process], size: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += size(process)
    return total


class Machine(NamedTuple):
    """What a worker has to know of its machine and cannot find out itself, because it must stay free of torch."""

    torch: str
    """Version of torch that jobs train with."""
    gpus: list[dict[str, Any]]


def describe_machine() -> Machine:
    """The machine, looked at in a process of its own.

    Raises:
        RuntimeError: that process died, as every job's would.
    """
    process = Process(entry.describe_machine)
    found: Machine | None = None
    gone = False
    while not gone:
        received, gone = process.messages(1.0)
        for message in received:
            found = Machine(*message)
    code = process.reap()
    if found is None:
        raise RuntimeError(f"the process that looks at torch and the GPUs of this machine ended with status {code}")
    return found


def preload_engine() -> None:
    """Have the forkserver import the training engine, which takes seconds; children forked meanwhile wait for it.

    Not waited for: the forkserver reports the end of the child that asks for it once it has imported the engine.
    """
    Process(entry.request_engine)


def _kernel_oom_kills() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
