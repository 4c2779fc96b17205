"""Checkpoints between this machine and the store, in threads of their own: one that hangs holds up nobody's cancel."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from service.checkpoints import Written
from service.config import settings
from service.store import Damaged, store
from workers.relay import Track

log = logging.getLogger(__name__)

Result = TypeVar("Result")
LOOK_SECONDS = 0.1
"""Between looks whether a transfer is still wanted."""


def newest_sound(rows: Sequence[Written], track: Track, is_unwanted: Callable[[], bool]) -> Path | None:
    """Where on this machine the newest checkpoint lies whose file is what its row says; None where none is.

    Args:
        rows: the job's checkpoints, the newest first.
        track: gets a note for each that is damaged.
        is_unwanted: whether the job is to end before it has begun.

    Raises:
        TimeoutError: it is unwanted, or the store has not answered for `stall_seconds`.
    """
    for written in rows:
        get = partial(store().get, written.file, written.size_bytes, written.sha256, str(track.claim.attempt))
        try:
            return _result(_aside(get), is_unwanted)
        except Damaged as damage:
            log.warning("job %s: checkpoint not used: %s", track.claim.job_id, damage)
            track.add_note(f"a checkpoint could not be used: {damage}")
    return None


class Uploads:
    """The checkpoints of an attempt on their way to the store: one at a time, and of those that wait the newest."""

    class _Running(NamedTuple):
        written: Written
        since: float
        done: Future[None]

    def __init__(self, track: Track) -> None:
        self._track = track
        self._running: Uploads._Running | None = None
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
        """Take over what has arrived, give up what takes too long, and begin what waits."""
        if self._running is not None:
            self._settle(self._running)
        if self._running is None and self._waiting is not None:
            written, self._waiting = self._waiting, None
            self._running = self._Running(written, time.monotonic(), _aside(partial(store().put, written.file)))

    def _settle(self, running: _Running) -> None:
        written, since, done = running
        if not done.done():
            if time.monotonic() - since < settings().stall_seconds:
                return
            done = Future()
            done.set_exception(TimeoutError(f"the store did not take it in {settings().stall_seconds:g} s"))
        self._running = None
        error = done.exception()
        if error is None:
            self._track.add_checkpoint(written)
            return
        # The store is away or full: the job goes on, and the next checkpoint may do.
        log.warning("job %s: checkpoint not stored: %s", self._track.claim.job_id, error)
        store().forget(store().path(written.file))
        self._track.add_note(f"a checkpoint could not be stored: {type(error).__name__}")


def _aside(call: Callable[[], Result]) -> Future[Result]:
    """Make a call that may never return, in a thread that ends with the process at the latest."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # it is for whoever asks
            future.set_exception(error)

    threading.Thread(target=run, name="transfer", daemon=True).start()
    return future


def _result(future: Future[Result], is_unwanted: Callable[[], bool]) -> Result:
    until = time.monotonic() + settings().stall_seconds
    while not wait([future], LOOK_SECONDS).done:
        if is_unwanted():
            raise TimeoutError("the job is to end before its checkpoint has arrived")
        if time.monotonic() > until:
            raise TimeoutError(f"the store of checkpoints did not answer for {settings().stall_seconds:g} s")
    return future.result()
