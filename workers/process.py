"""The process of a job: forked from the forkserver, monitored over a pipe, killed with its whole process group."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from workers import entry, messages
from workers.inbox import Inbox, Stalled

_FORKSERVER = multiprocessing.get_context("forkserver")
_REAPING = threading.Lock()
"""`start()` also polls processes of other threads; without this lock exit codes are lost (703 of 2,282 in a test).

It is held for seconds while the forkserver imports the engine, and delays `reap()`; `kill()` does not need it.
"""


LAST_ERRORS_BYTES = 4096
MAX_ERRORS_BYTES = 2**20
"""What a child may write to the worker's log in all; the rest is dropped."""
ERRORS_BYTES_AT_ONCE = 2**18
MAX_PROCESSES = 64
"""Processes that uploaded code may start; compiling with torch takes some."""
ALLOCATION_FAILED = (b"bad_alloc", b"Cannot allocate memory", b"Thread creation failed", b"MemoryError")
"""The last words of C++, of C libraries, of OpenMP and of Python before they end a process without memory."""


class Process:
    """A running child."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.pipe, child_end = _FORKSERVER.Pipe()
        self._inbox = Inbox(self.pipe)
        self._errors, errors_end = _FORKSERVER.Pipe(duplex=False)
        os.set_blocking(self._errors.fileno(), False)
        self._last_errors = b""
        self._errors_bytes = 0
        self.invalid: str | None = None
        """Why its last message is invalid; the process has been killed then."""
        self._process = _FORKSERVER.Process(
            target=entry.start, args=(errors_end, target, child_end, *args), daemon=False
        )
        self._oom_kills = _kernel_oom_kills()
        with _REAPING:
            self._process.start()
        child_end.close()
        errors_end.close()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the process group."""
        assert self._process.pid is not None
        return self._process.pid

    def messages(self, timeout_seconds: float, *, listens: bool = True) -> tuple[list[messages.Received], bool]:
        """The messages received within the timeout, and whether the child has ended and sent all messages.

        Without `listens` no message is read, and the child blocks once the pipe is full.
        """
        ready = wait([self._process.sentinel, *([self.pipe] if listens else [])], timeout_seconds)
        self._pass_errors_on()
        received: list[messages.Received] = []
        if listens or ready:
            try:
                received = [] if self.invalid else self._inbox.receive()
            except Stalled:
                self.kill()
            except messages.InvalidMessage as error:
                self.invalid = str(error)
                self.kill()
            except OSError:
                pass
        return received, self._process.sentinel in ready and not received

    def ask(self, request: bytes) -> None:
        """Ask the training loop to end after its current step: `messages.CANCEL` or `messages.PAUSE`."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(request)

    def memory_bytes(self) -> int:
        """Resident memory of the child beyond the forkserver's, which it shares, and that of its descendants alone."""
        with contextlib.suppress(psutil.Error):
            child = psutil.Process(self.pid)
            forkserver, descendants = child.parent(), child.children(recursive=True)
            shared = forkserver.memory_info().rss if forkserver else 0
            return max(0, int(child.memory_info().rss) - shared) + _sum(
                descendants, lambda process: process.memory_full_info().uss
            )
        return 0

    def excess(self) -> str | None:
        """What is wrong if the child has started too many processes."""
        with contextlib.suppress(psutil.Error):
            count = len(psutil.Process(self.pid).children(recursive=True))
            if count > MAX_PROCESSES:
                return f"it started {count} processes; at most {MAX_PROCESSES} are allowed"
        return None

    def _pass_errors_on(self) -> None:
        """Write the child's standard error to that of this process, and remember its end."""
        with contextlib.suppress(BlockingIOError):
            received = 0
            while received < ERRORS_BYTES_AT_ONCE and (text := os.read(self._errors.fileno(), LAST_ERRORS_BYTES)):
                received += len(text)
                self._last_errors = (self._last_errors + text)[-LAST_ERRORS_BYTES:]
                if self._errors_bytes < MAX_ERRORS_BYTES:
                    self._errors_bytes += len(text)
                    dropped = b"\n[more output is dropped]\n" if self._errors_bytes >= MAX_ERRORS_BYTES else b""
                    with contextlib.suppress(OSError):
                        os.write(2, text + dropped)

    def kill(self) -> None:
        """Kill the process and its descendants, also those that have left its group."""
        with contextlib.suppress(psutil.Error):
            for descendant in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    descendant.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def reap(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end and return the exit status (negative: signal); None on timeout."""
        if not wait([self._process.sentinel], timeout_seconds):
            return None
        with _REAPING:
            self._process.join()
            code: int | None = self._process.exitcode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # remaining descendants
        self.pipe.close()
        self._pass_errors_on()
        self._errors.close()
        return code

    def failed_to_allocate(self) -> bool:
        """Whether native code ended the child because an allocation failed; read from its standard error."""
        return any(text in self._last_errors for text in ALLOCATION_FAILED)

    def was_killed_for_memory(self, code: int | None) -> bool:
        """Whether this child ended by SIGKILL and the kernel's out-of-memory killer was active while it ran."""
        return code == -signal.SIGKILL and _kernel_oom_kills() > self._oom_kills


def _sum(processes: list[psutil.Process], size: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # the process has ended
            try:
                total += size(process)
            except psutil.AccessDenied:
                total += process.memory_info().rss
    return total


class EngineError(Exception):
    """torch or the training engine cannot be imported on this machine; says why. The traceback is in the log."""


def describe_machine() -> messages.Machine:
    """Detect torch and the GPUs in a separate process. Raises `EngineError`."""
    machine = _answer(entry.describe_machine)
    assert isinstance(machine, messages.Machine)
    return machine


def preload_engine() -> Process:
    """Have the forkserver import the training engine, which takes seconds; children forked meanwhile wait for it.

    Returns immediately, for `check_engine`.
    """
    return Process(entry.request_engine)


def check_engine(request: Process) -> int:
    """Wait until the forkserver has imported the training engine, and return the resident memory that it takes.

    Raises `EngineError` if the import failed.
    """
    request.reap()  # the forkserver reports its end after the import
    memory = _answer(entry.check_engine)
    assert isinstance(memory, messages.EngineMemory)
    return memory.resident_bytes


def _answer(target: Callable[[Connection], None]) -> messages.Received:
    """The message of a short-lived child."""
    process, has_ended = Process(target), False
    answer: messages.Received | None = None
    while not has_ended:
        received, has_ended = process.messages(1.0)
        for message in received:
            answer = message
    code = process.reap()
    match answer:
        case None:
            raise EngineError(f"the process that checks this machine ended with status {code}")
        case messages.NoEngine(reason):
            raise EngineError(reason)
    return answer


def _kernel_oom_kills() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
