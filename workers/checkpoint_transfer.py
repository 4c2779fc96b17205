"""Checkpoints between this machine and the store, in threads of their own: one that hangs holds up nobody's cancel."""

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
from workers.heartbeat import Track

log = logging.getLogger(__name__)

Result = TypeVar("Result")
LOOK_SECONDS = 0.1
"""Between looks whether a transfer is still wanted."""


class Unwanted(Exception):
    """The job is to end before its checkpoint has arrived."""


class Uploads:
    """The checkpoints of an attempt on their way to the store: one at a time, and of those that wait the newest."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._running: tuple[Written, _Transfer[None]] | None = None
        self._waiting: Written | None = None

    @property
    def are_done(self) -> bool:
        """Whether nothing is on its way."""
        return self._running is None

    def add(self, written: Written) -> None:
        """Send a file that lies at `store().path`, and have it count once it is there."""
        if self._waiting is not None:
            store().forget(store().path(self._waiting.file))
        self._waiting = written
        self.look()

    def look(self) -> None:
        """Take over what has arrived, give up what hangs, and begin what waits."""
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
        except Exception as error:  # the store is away, full or hangs: the job goes on, and the next one may do
            log.warning("job %s: checkpoint not stored: %s", self._track.claim.job_id, error)
            store().forget(store().path(written.file))
            self._track.add_note(f"a checkpoint could not be stored: {type(error).__name__}")
        else:
            self._track.add_checkpoint(written)
        self._running = None


def newest_sound(rows: Sequence[Written], track: Track, is_unwanted: Callable[[], bool]) -> Path | None:
    """Where on this machine the newest checkpoint lies whose file is what its row says; None where none is.

    Args:
        rows: the job's checkpoints, the newest first.
        track: gets a note for each that is not used.
        is_unwanted: whether the job is to end before it has begun.

    Raises:
        Absent: there is none to use, but one of them may come back.
        Unwanted: see `is_unwanted`.
        TimeoutError: the store hangs.
    """
    absent = None
    for written in rows:
        try:
            return _fetch(written, str(track.claim.attempt), is_unwanted)
        except (Damaged, Absent) as trouble:
            log.warning("job %s: checkpoint not used: %s", track.claim.job_id, trouble)
            track.add_note(f"a checkpoint could not be used: {trouble}")
            absent = absent or (trouble if isinstance(trouble, Absent) else None)
    if absent is not None:
        raise absent
    return None


def _fetch(written: Written, reader: str, is_unwanted: Callable[[], bool]) -> Path:
    transfer = _Transfer(
        lambda progress: store().get(written.file, written.size_bytes, written.sha256, reader, progress)
    )
    while not transfer.is_over():
        if is_unwanted():
            raise Unwanted
        transfer.wait(LOOK_SECONDS)
    return transfer.result()


class _Progress(Callback):  # type: ignore[misc]  # fsspec ships no types
    """When something of a file was moved last."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_at = time.monotonic()

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        self.moved_at = time.monotonic()


class _Transfer(Generic[Result]):
    """A call that may never return, in a thread that ends with the process at the latest."""

    _given_up: list[Future[Any]] = []  # noqa: RUF012 (of all of them)

    def __init__(self, call: Callable[[Callback], Result]) -> None:
        self._progress = _Progress()
        self._future: Future[Result] = Future()
        hanging = [other for other in self._given_up if not other.done()]
        self._given_up[:] = hanging
        if hanging:  # a thread more each time would be too many in a night
            self._future.set_exception(TimeoutError("the store of checkpoints still hangs in an earlier transfer"))
            return

        def run() -> None:
            try:
                self._future.set_result(call(self._progress))
            except BaseException as error:  # it is for whoever asks
                self._future.set_exception(error)

        threading.Thread(target=run, name="transfer", daemon=True).start()

    def wait(self, seconds: float) -> None:
        wait([self._future], seconds)

    def is_over(self) -> bool:
        """Whether there is a result. Raises TimeoutError, and gives it up, where nothing moves any more."""
        if self._future.done():
            return True
        if time.monotonic() - self._progress.moved_at > settings().stall_seconds:
            self._given_up.append(self._future)
            raise TimeoutError(f"the store of checkpoints did nothing for {settings().stall_seconds:g} s")
        return False

    def result(self) -> Result:
        return self._future.result()
