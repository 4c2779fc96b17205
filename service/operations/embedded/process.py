"""Child processes that log to a file and die with their parent, even if that is killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.operations.embedded import launch

_ROTATE_BYTES = 16 * 2**20
_KILL_SECONDS = 5.0
_PROBE_SECONDS = 0.01
_HARMLESS = re.compile(r"\b(DEBUG|INFO|LOG|WARNING)\b")
"""Levels of log lines that tell no error."""


class EmbeddedError(Exception):
    """A process cannot start. The message is one line and suggests a remedy."""


@dataclass(frozen=True)
class Account:
    """The operating system user of a process."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further groups: those of the GPUs."""
    reads_all: bool = False
    """Whether its processes keep the capability to read all files, without which they could not read their program."""

    def blocked_at(self, folder: Path) -> Path | None:
        """The first folder on the absolute path `folder` that the user may not enter; None if all are accessible."""
        return next((step for step in (*reversed(folder.parents), folder) if not self._may(step, 0o1)), None)

    def may_read(self, path: Path) -> bool:
        """Whether the user can read the file, or list and enter the folder."""
        rights = 0o5 if path.is_dir() else 0o4
        return self.blocked_at(path.parent) is None and self._may(path, rights)

    def may_write_in(self, folder: Path) -> bool:
        """Whether the user can create files in the folder."""
        return self.blocked_at(folder.parent) is None and self._may(folder, 0o3)

    def _may(self, path: Path, rights: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            allowed = status.st_mode >> 6
        elif status.st_gid in (self.gid, *self.groups):
            allowed = status.st_mode >> 3
        else:
            allowed = status.st_mode
        return allowed & rights == rights


@dataclass
class Process:
    """A child process in its own session; it can be restarted with `start` and `stop`.

    The kernel sends `death_signal` when the thread that started the child ends, so start it from the main thread.
    `stop_signals` are sent in order, each with its timeout in seconds; then the process group is killed.
    `secret_input` is passed on standard input.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),)
    keep_open: Sequence[int] = ()
    secret_input: str = ""
    _child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def exit_code(self) -> int | None:
        """Exit code of a child that ended without `stop` (negative: signal); None while it runs."""
        return self._child.poll() if self._child else None

    def is_running(self) -> bool:
        """Whether the child is running."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child, without waiting until it is ready."""
        assert threading.current_thread() is threading.main_thread(), (
            "the child would die with the thread that starts it"
        )
        assert not self.is_running(), f"{self.name} is already running"
        account = self.account
        ids = [account.uid, int(account.reads_all), account.gid, *account.groups] if account else []
        wrapper = [sys.executable, "-I", "-S", launch.__file__]
        numbers = [str(os.getpid()), str(int(self.death_signal)), ",".join(map(str, ids))]
        with _opened_log(self.log) as log, tempfile.TemporaryFile() as secret:
            secret.write(self.secret_input.encode())
            secret.seek(0)
            self._child = subprocess.Popen(
                [*wrapper, *numbers, *self.command],
                stdin=secret,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                pass_fds=tuple(self.keep_open),
            )

    def rotate_log(self) -> None:
        """Move the content of a large log to `NAME.1`. The child keeps the file open and appends to it.

        A line that is written at this moment may be lost.
        """
        with contextlib.suppress(OSError):  # no log is worth a restart of the stack
            if self.log.stat().st_size > _ROTATE_BYTES:
                with contextlib.suppress(OSError):  # a full disk: then the truncation makes room
                    shutil.copyfile(self.log, self.log.with_name(self.log.name + ".1"))
                os.truncate(self.log, 0)

    def start_server(
        self, title: str, probe: Callable[[], object], unavailable: type[Exception], seconds: float
    ) -> None:
        """Start a server and wait until it responds; if it does not, stop it.

        Args:
            title: name of the server in error messages.
            probe: sends a request to the server.
            unavailable: type of the exceptions that `probe` raises until the server responds.
            seconds: timeout.

        Raises:
            EmbeddedError: the server has ended, or does not respond in time.
        """
        deadline = time.monotonic() + seconds
        self.start()
        try:
            while True:
                try:
                    probe()
                    return
                except unavailable as error:
                    if (code := self.exit_code()) is not None:
                        raise EmbeddedError(
                            f"{title} failed to start (exit status {code}): {last_error(self.log)}; see {self.log}"
                        ) from error
                    if time.monotonic() > deadline:
                        raise EmbeddedError(f"{title} does not respond: {error}; see {self.log}") from error
                    time.sleep(_PROBE_SECONDS)
        except BaseException:
            self.stop()
            raise

    def run(self, seconds: float) -> int:
        """Run the child to its end, at most `seconds`, and return its exit status."""
        self.start()
        assert self._child is not None
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop the child, gently at first; no effect if it is not running."""
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        for number, seconds in self.stop_signals:
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):  # then a stronger signal
                child.wait(seconds)
                break
        _kill_group(child)


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill the remaining process group of the child (such as the worker's forkserver) and wait until it has ended."""
    deadline = time.monotonic() + _KILL_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.poll()
            time.sleep(0.005)


def last_error(log: Path) -> str:
    """Why a process ended: its disk is full, or the last line of its log that is no information; FATAL goes first."""
    if shutil.disk_usage(log).free == 0:
        return "the disk of its log is full"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line]
    errors = [line for line in lines if _HARMLESS.search(line) is None]
    return (fatal or errors or ["its log names no error"])[-1]


def _opened_log(path: Path) -> IO[bytes]:
    """The log, opened for appending; a large one is first renamed to `NAME.1`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > _ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
