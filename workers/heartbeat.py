"""The relay: one thread that gives a sign of life for all of a worker's jobs and stores what they measured.

One transaction a beat, whatever the number of slots. What could not be stored stays here and is sent again unchanged,
so that an answer that got lost behind a commit doubles nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar
from uuid import UUID

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import heartbeats
from service.jobs.checkpoints import Written
from service.jobs.claims import Claim
from service.jobs.heartbeats import Batch, Beat, Instruction
from service.specs.outcome import Environment
from service.storage.database import is_locked, limit_lock_wait, transaction

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Columns = tuple[list[int], list[float], list[float]]
MOST_HELD = 3_000_000
"""Points that a job may have waiting: about 300 MB, hours of a database that is away."""
MOST_SENT = 200_000
"""Points of a job in one heartbeat, which should take much less than a lease."""


def _size(batch: Batch) -> int:
    return sum(len(steps) for steps, _, _ in batch.points.values())


def _first(batches: list[Batch]) -> list[Batch]:
    """As many as a heartbeat may carry, at least one."""
    total = list(accumulate(map(_size, batches)))
    return [batch for batch, until in zip(batches, total, strict=True) if until <= MOST_SENT] or batches[:1]


class Track:
    """What is known of one running job between two beats."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.instruction = Instruction.CONTINUE
        self.step = claim.step
        self.total_steps: int | None = None
        self.environment: Environment | None = None
        self._lock = threading.Lock()
        self._sealed: list[Batch] = []
        self._points: dict[str, Columns] = {}
        self._checkpoints: list[Written] = []
        self._notes: list[str] = []
        self._held = 0

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the database that the run has to wait, too."""
        return self._held > MOST_HELD

    def add(self, step: int, points: dict[str, Columns]) -> None:
        """Take over what the child measured."""
        with self._lock:
            self.step = step
            for name, (steps, values, wall_seconds) in points.items():
                kept = self._points.setdefault(name, ([], [], []))
                kept[0].extend(steps)
                kept[1].extend(values)
                kept[2].extend(wall_seconds)
                self._held += len(steps)

    def add_checkpoint(self, written: Written) -> None:
        """A file that lies in the store, after the points up to its step were taken over."""
        with self._lock:
            self._checkpoints.append(written)

    def add_note(self, text: str) -> None:
        """Something that the user should know."""
        with self._lock:
            self._notes.append(text)

    def seal(self) -> list[Batch]:
        """All that is not known to be stored, in batches that never change from now on."""
        with self._lock:
            if self._points or self._checkpoints or self._notes:
                self._sealed.append(Batch(self._points, self._checkpoints, self._notes))
                self._points, self._checkpoints, self._notes = {}, [], []
            return list(self._sealed)

    def stored(self, batches: list[Batch]) -> None:
        """These need not be sent again."""
        with self._lock:
            self._sealed = self._sealed[len(batches) :]
            self._held -= sum(map(_size, batches))


class Relay(threading.Thread):
    """Beats every `beat_seconds` until `stop()`."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(name="relay", daemon=True)
        self._worker_id = worker_id
        self._tracks: dict[UUID, Track] = {}
        self._beating = threading.Lock()
        self._stopped = threading.Event()

    def track(self, claim: Claim) -> Track:
        """Begin to give signs of life for a job."""
        track = Track(claim)
        with self._beating:
            if claim.job_id in self._tracks:  # ours before, taken back, and ours again: the old attempt is to stop
                self._tracks[claim.job_id].instruction = Instruction.LOST
            self._tracks[claim.job_id] = track
        return track

    def untrack(self, track: Track) -> None:
        """No more of them; returns when no beat that mentions the job is under way."""
        with self._beating:
            if self._tracks.get(track.claim.job_id) is track:
                del self._tracks[track.claim.job_id]

    def stop(self) -> None:
        """End the thread after its current beat."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Beat."""
        while not self._stopped.wait(settings().beat_seconds):
            try:
                with self._beating:
                    self._beat()
            except Exception as error:  # whatever it is, the next beat may work, and no beat means losing every job
                expected = is_away(error) or is_locked(error)
                log.warning("heartbeat not stored, will try again: %s", error, exc_info=not expected)

    def _beat(self) -> None:
        tracks = list(self._tracks.values())
        try:
            self._send(tracks)
        except Exception as error:
            if is_away(error) or len(tracks) < 2:
                raise
            log.warning("heartbeat of %d jobs not stored, sending one by one: %s", len(tracks), error)
            self._send_one_by_one(tracks)

    def _send_one_by_one(self, tracks: list[Track]) -> None:
        """What the database refuses of one job, or whose row somebody keeps locked, holds up no other one."""
        for track in tracks:
            try:
                self._send([track])
            except Exception as error:
                if is_away(error):
                    raise
                log.warning("job %s: heartbeat not stored", track.claim.job_id, exc_info=not is_locked(error))

    def _send(self, tracks: list[Track]) -> None:
        sealed = [(track, _first(track.seal())) for track in tracks]
        beats = [Beat(track.claim, track.step, track.total_steps, batches) for track, batches in sealed]
        with transaction() as session:
            limit_lock_wait(session)
            instructions = heartbeats.beat(session, self._worker_id, beats)
        for track, batches in sealed:
            track.stored(batches)
            if track.instruction is not Instruction.LOST:
                track.instruction = instructions[track.claim.job_id]


def retry_while_database_is_down(write: Callable[[Session], Result], give_up: Callable[[], bool]) -> Result | None:
    """Run `write` in a transaction until the database takes it; None where `give_up` says so first.

    Only a database that is away is waited for; every other error is raised.
    """
    pause = threading.Event()
    wait_seconds = 0.1
    while True:
        try:
            with transaction() as session:
                return write(session)
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("database away, will try again: %s", str(error).splitlines()[0])
            if give_up():
                return None
            pause.wait(wait_seconds)
            wait_seconds = min(2 * wait_seconds, 5.0)


def is_away(error: Exception) -> bool:
    """Whether the server could not be reached, shut down under us or has no room; it did not refuse the statement."""
    if is_locked(error):
        return False
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    # psycopg's own comes from COPY, of which SQLAlchemy knows nothing
    return isinstance(error, PoolTimeout | psycopg.OperationalError)
