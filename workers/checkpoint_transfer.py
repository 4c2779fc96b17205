"""Transfers of checkpoints to and from the store, in threads, so that a hanging store does not block cancellation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from fsspec.callbacks import Callback

from service.config import settings
from service.jobs.checkpoints import Written
from service.storage.files import Absent, Damaged, store
from workers.heartbeat import AttemptState

log = logging.getLogger(__name__)

Result = TypeVar("Result")
POLL_SECONDS = 0.1
"""Interval of checks whether a transfer was cancelled."""


class TransferCancelled(Exception):
    """The job was stopped before its checkpoint arrived."""


class Uploads:
    """Uploads of an attempt's checkpoints, one at a time. Of several waiting ones only the newest is uploaded."""

    def __init__(self, state: AttemptState) -> None:
        self._state = state
        self._running: tuple[Written, _Transfer[None]] | None = None
        self._waiting: Written | None = None

    @property
    def are_done(self) -> bool:
        """Whether no upload is in progress."""
        return self._running is None

    def add(self, written: Written) -> None:
        """Upload the file at `store().path`; the checkpoint is recorded once the upload is complete."""
        if self._waiting is not None:
            store().forget(store().path(self._waiting.file))
        self._waiting = written
        self.poll()

    def poll(self) -> None:
        """Record a finished upload, abandon a hanging one, and start the next."""
        if self._running is not None:
            self._settle(*self._running)
        if self._running is None and self._waiting is not None:
            written, self._waiting = self._waiting, None
            self._running = written, _Transfer(lambda progress: store().put(written.file, progress))

    def _settle(self, written: Written, transfer: _Transfer[None]) -> None:
        try:
            if not transfer.is_over():
                return
            transfer.result()
        except Exception as error:  # store unavailable, full or hanging: the job continues, a later upload may succeed
            store().forget(store().path(written.file))
            self._state.report_checkpoint_failure(
                f"a checkpoint could not be stored in KOTRAIN_FILES: {_cause(error)}", written.step, error
            )
        else:
            self._state.add_checkpoint(written)
        self._running = None


def fetch_newest_valid(rows: Sequence[Written], state: AttemptState, is_cancelled: Callable[[], bool]) -> Path | None:
    """Download the newest valid checkpoint and return its path on this machine; None if there is none.

    Args:
        rows: the checkpoints of the job, newest first.
        state: gets a note for each checkpoint that is skipped.
        is_cancelled: whether the job was stopped meanwhile.

    Raises:
        Absent: there is no valid one, but a missing one may reappear.
        TransferCancelled: see `is_cancelled`.
        TimeoutError: the store hangs.
    """
    absent = None
    for written in rows:
        try:
            return _fetch(written, str(state.claim.attempt), is_cancelled)
        except (Damaged, Absent) as error:
            log.warning("job %s: checkpoint not used: %s", state.claim.job_id, error)
            state.add_note(f"a checkpoint could not be used: {error}")
            absent = absent or (error if isinstance(error, Absent) else None)
    if absent is not None:
        raise absent
    return None


def _fetch(written: Written, reader: str, is_cancelled: Callable[[], bool]) -> Path:
    transfer = _Transfer(
        lambda progress: store().get(written.file, written.size_bytes, written.sha256, reader, progress)
    )
    while not transfer.is_over():
        if is_cancelled():
            raise TransferCancelled
        transfer.wait(POLL_SECONDS)
    return transfer.result()


def _cause(error: Exception) -> str:
    """A cause without paths and addresses."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


class _Progress(Callback):  # type: ignore[misc]  # fsspec ships no types
    """Time of the last progress of a transfer."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_at = time.monotonic()

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        self.moved_at = time.monotonic()


class _Transfer(Generic[Result]):
    """A call that may never return, in a daemon thread."""

    _abandoned: list[Future[Any]] = []  # noqa: RUF012 (shared by all transfers)

    def __init__(self, call: Callable[[Callback], Result]) -> None:
        self._progress = _Progress()
        self._future: Future[Result] = Future()
        hanging = [other for other in self._abandoned if not other.done()]
        self._abandoned[:] = hanging
        if hanging:  # else threads would accumulate
            self._future.set_exception(TimeoutError("the store of checkpoints still hangs in an earlier transfer"))
            return

        def run() -> None:
            try:
                self._future.set_result(call(self._progress))
            except BaseException as error:  # raised by result()
                self._future.set_exception(error)

        threading.Thread(target=run, name="transfer", daemon=True).start()

    def wait(self, seconds: float) -> None:
        wait([self._future], seconds)

    def is_over(self) -> bool:
        """Whether the call has ended. Raises TimeoutError and abandons it if there is no progress."""
        if self._future.done():
            return True
        if time.monotonic() - self._progress.moved_at > settings().stall_seconds:
            self._abandoned.append(self._future)
            raise TimeoutError(f"no progress of the store of checkpoints for {settings().stall_seconds:g} s")
        return False

    def result(self) -> Result:
        return self._future.result()
