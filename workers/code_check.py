"""Runs the conformance test of uploaded code in an isolated process, and stores what it found."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

from service.code import checks, isolation
from service.code.schemas import Check
from service.config import settings
from service.specs.catalog.declaration import Declaration
from service.storage.database import transaction
from workers import entry, messages, own_folder
from workers.heartbeat import is_away
from workers.host import Host
from workers.process import Process

log = logging.getLogger(__name__)

SECONDS = 60.0
"""Time for all checks; a usual optimizer takes two to five."""
MEMORY_BYTES, MAX_BYTES = 2**31, 2**28
POLL_SECONDS, STOP_SECONDS = 0.2, 10.0
MAX_TROUBLES = 3
"""Tests of a version that trouble of the machine may end on this worker: code can cause what looks like it."""


class MachineTrouble(Exception):
    """The test was ended by something that another one need not meet."""


class CodeCheckThread(threading.Thread):
    """Tests uploaded code, one version at a time, beside the slots: code that hangs must not keep jobs waiting."""

    def __init__(self, host: Host) -> None:
        super().__init__(name="code check", daemon=True)
        self._host = host
        self._woken = threading.Event()
        self._troubles: Counter[UUID] = Counter()

    def wake(self) -> None:
        """Look for a version to test now."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread; `draining` of its host is set."""
        self.wake()
        self.join(STOP_SECONDS)

    def run(self) -> None:
        """Test versions when woken, and every `maintenance_seconds`."""
        while not self._host.draining.is_set():
            try:
                while not self._host.draining.is_set() and check_one(self._host, self._troubles):
                    pass
            except Exception as error:  # the thread must survive any error
                log.warning("test of uploaded code postponed: %s", error, exc_info=not is_away(error))
            self._woken.wait(settings().maintenance_seconds)
            self._woken.clear()


def check_one(host: Host, troubles: Counter[UUID]) -> bool:
    """Test the oldest version that has not been tested; False if there is none.

    `troubles` counts the tests of each version that trouble of the machine has ended; they are repeated.
    """
    mode = settings().uploaded_code
    if mode == "off" or (mode == "confined" and isolation.missing() is not None):
        return False
    with transaction() as session:
        row = checks.claim(session)
    if row is None:
        return False
    code = messages.Code(Declaration.model_validate(row.declaration), row.file, row.source)
    try:
        results = _run(code, host)
    except Exception as error:  # no process, no folder: of the machine as well
        log.warning(
            "code %s: the test was ended: %s", row.version, error, exc_info=not isinstance(error, MachineTrouble)
        )
        troubles[row.id] += 1
        is_last = troubles[row.id] >= MAX_TROUBLES
        results = [_failed(f"the test was ended {MAX_TROUBLES} times: {error}")] if is_last else None
    if results is not None:
        troubles.pop(row.id, None)
    log.info("code %s: %s", row.version, "not tested" if results is None else f"{len(results)} checks")
    with transaction() as session:
        checks.store(session, row.id, results)
    return True


def _run(code: messages.Code, host: Host) -> list[Check] | None:
    """The outcomes; None if this machine cannot run tests, or is shutting down. Raises MachineTrouble."""
    folder = Path(tempfile.mkdtemp(prefix="kotrain-check-"))
    task = messages.CodeCheck(code, folder, MEMORY_BYTES, host.threads_per_job, settings().uploaded_code == "trusted")
    process = Process(entry.check_code, task)
    deadline, has_ended = time.monotonic() + SECONDS, False
    problem: str | None = f"does not end within {SECONDS:g} s"
    answer: messages.Received | None = None
    try:
        while not has_ended and time.monotonic() < deadline and problem is not None:
            if host.draining.is_set():
                return None
            received, has_ended = process.messages(POLL_SECONDS)
            answer = received[-1] if received else answer
            if (
                problem := process.excess()
                or own_folder.excess(folder, settings().min_free_bytes, MAX_BYTES)
                or process.invalid
            ):
                break
            if process.memory_bytes() > MEMORY_BYTES:
                problem = "takes more than 2 GiB of memory"
                break
            problem = f"does not end within {SECONDS:g} s"
    finally:
        process.kill()
        code_of_end = process.reap(5.0)
        own_folder.clear(folder, ())
    match answer:
        case messages.Checked(found):
            return _believable([Check(name=name, outcome=outcome, text=text) for name, outcome, text in found])
        case messages.NoEngine():
            return None
        case messages.Unable(text) | messages.Failure("child_lost", text):
            raise MachineTrouble(_last_line(text))
        case messages.Failure(_, text):
            problem = text
        case _ if has_ended and code_of_end == -signal.SIGKILL:  # which process 1 of a namespace ignores from inside
            raise MachineTrouble("its process was killed from outside")
        case _ if has_ended:
            problem = f"ends the process with status {code_of_end}"
    return [_failed(problem or "fails")]


def _believable(results: list[Check]) -> list[Check]:
    """The results, unless some are missing: the process that sends them has executed the code."""
    names = tuple(result.name for result in results)
    is_complete = names == checks.NAMES or (names == checks.NAMES[:1] and results[0].outcome == "fail")
    return results if is_complete else [_failed("the results of the test are incomplete")]


def _failed(text: str) -> Check:
    """The result of a test that did not come to an end."""
    return Check(name=checks.NAMES[0], outcome="fail", text=_last_line(text))


def _last_line(text: str) -> str:
    """What a traceback says."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "fails"
