"""A server or worker as our own child: it logs to a file, and never outlives us, even when we are killed."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.operations.embedded import launch

_ROTATE_BYTES = 16 * 2**20
_KILL_SECONDS = 5.0


class EmbeddedError(Exception):
    """A part cannot start; the message is one line that says what to do."""


@dataclass(frozen=True)
class Account:
    """The user under whom a server runs."""

    name: str
    uid: int
    gid: int

    def blocked_at(self, folder: Path) -> Path | None:
        """The first folder on the way from / into `folder` (absolute) that the user may not enter; None if open."""
        for step in (*reversed(folder.parents), folder):
            status = step.stat()
            if status.st_uid == self.uid:
                open_to_us = status.st_mode & 0o100
            elif status.st_gid == self.gid:
                open_to_us = status.st_mode & 0o010
            else:
                open_to_us = status.st_mode & 0o001
            if not open_to_us:
                return step
        return None


def server_account() -> Account | None:
    """Who runs the servers: ourselves (None), or `nobody` where we are root, as whom PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no user 'nobody': run kotrain as an ordinary user"
        ) from None
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)


@dataclass
class Process:
    """One child, in its own session, started (again) by `start` and ended by `stop`.

    `death_signal` is what the kernel sends it when the thread that started it ends, hence the main thread only.
    `stop_signals` are tried in order, each for its number of seconds; then the whole process group is killed.
    `secret_input` reaches the program's standard input.
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
        """The child's process id; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def exit_code(self) -> int | None:
        """The code with which the child ended by itself (negative: the signal); None while it runs."""
        return self._child.poll() if self._child else None

    def is_running(self) -> bool:
        """Whether the child lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child; it may not be ready yet."""
        assert threading.current_thread() is threading.main_thread(), "a child ends with the thread that started it"
        assert not self.is_running(), f"{self.name} runs already"
        uid, gid = (self.account.uid, self.account.gid) if self.account else (-1, -1)
        wrapper = [sys.executable, "-I", "-S", launch.__file__]
        numbers = [str(number) for number in (os.getpid(), int(self.death_signal), uid, gid)]
        with _opened_log(self.log) as log, tempfile.TemporaryFile() as given:
            given.write(self.secret_input.encode())
            given.seek(0)
            self._child = subprocess.Popen(
                [*wrapper, *numbers, *self.command],
                stdin=given,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                pass_fds=tuple(self.keep_open),
            )

    def run(self, seconds: float) -> int:
        """Start the child and wait for its end, at most so many seconds; its exit status."""
        self.start()
        assert self._child is not None
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self.stop()

    def stop(self) -> None:
        """End the child, gently at first; nothing happens if it does not run."""
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
    """Kill the child, and what it has left in its process group (the worker's forkserver), and see them gone."""
    deadline = time.monotonic() + _KILL_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.poll()
            time.sleep(0.005)


def last_line(log: Path) -> str:
    """What a program said last, for an error message: its last line with FATAL in it, else its last line at all."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or ["it said nothing"])[-1]


def _opened_log(path: Path) -> IO[bytes]:
    """The log, opened to append; one that has grown large is set aside once as `NAME.1`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > _ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
