"""The heartbeat thread: extends the leases of all jobs of a worker and stores their metrics.

Each heartbeat is one transaction, for all slots. Batches that could not be stored are sent again unchanged, so that
nothing is stored twice if the confirmation of a commit is lost.
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
from service.specs.summary import Environment
from service.storage.database import is_locked, limit_lock_wait, transaction

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Columns = tuple[list[int], list[float], list[float]]
MAX_PENDING_POINTS = 3_000_000
"""Pending points of a job at which its training waits: about 300 MB, hours without a database."""
MAX_SENT_POINTS = 200_000
"""Points of a job per heartbeat, so that it takes much less than a lease."""


def _size(batch: Batch) -> int:
    return sum(len(steps) for steps, _, _ in batch.points.values())


def _first(batches: list[Batch]) -> list[Batch]:
    """The batches that fit into one heartbeat, at least one."""
    total = list(accumulate(map(_size, batches)))
    return [batch for batch, until in zip(batches, total, strict=True) if until <= MAX_SENT_POINTS] or batches[:1]


class AttemptState:
    """State of a running attempt: its instruction from the database, and what remains to be stored."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.instruction = Instruction.CONTINUE
        self.step = claim.step
        self.total_steps: int | None = None
        self.environment: Environment | None = None
        self.message: str | None = None
        """Why the newest checkpoint is not stored."""
        self._failed_step = 0
        self._lock = threading.Lock()
        self._pending: list[Batch] = []
        self._points: dict[str, Columns] = {}
        self._checkpoints: list[Written] = []
        self._notes: list[str] = []
        self._pending_points = 0

    @property
    def is_full(self) -> bool:
        """Whether training has to wait because too many points are pending."""
        return self._pending_points > MAX_PENDING_POINTS

    def add(self, step: int, points: dict[str, Columns]) -> None:
        """Add metric points of the child."""
        with self._lock:
            self.step = step
            for name, (steps, values, wall_seconds) in points.items():
                columns = self._points.setdefault(name, ([], [], []))
                columns[0].extend(steps)
                columns[1].extend(values)
                columns[2].extend(wall_seconds)
                self._pending_points += len(steps)

    def add_checkpoint(self, written: Written) -> None:
        """Add a stored checkpoint, after the points up to its step."""
        with self._lock:
            self._checkpoints.append(written)
            if self.message is not None and written.step > self._failed_step:
                self.message = None
                self._notes.append(f"a checkpoint is stored again: step {written.step}")

    def report_checkpoint_failure(self, cause: str, step: int | None = None, detail: object = None) -> None:
        """Record that the checkpoint of a step, by default the last known one, could not be stored.

        Until a later one is stored, the job has the cause as its message. The history has the first failure. The log
        has all of them, with a detail that may name paths and addresses.
        """
        with self._lock:
            self._failed_step = max(self._failed_step, self.step if step is None else step)
            log.warning("job %s: %s", self.claim.job_id, f"{cause} ({detail})" if detail else cause)
            if cause != self.message:
                self._notes.append(f"{cause} (step {self._failed_step})")
            self.message = cause

    def add_note(self, text: str) -> None:
        """Add a message for the history of the job."""
        with self._lock:
            self._notes.append(text)

    def seal(self) -> list[Batch]:
        """Close the open batch, and return all batches that are not yet stored; they no longer change."""
        with self._lock:
            if self._points or self._checkpoints or self._notes:
                self._pending.append(Batch(self._points, self._checkpoints, self._notes))
                self._points, self._checkpoints, self._notes = {}, [], []
            return list(self._pending)

    def mark_stored(self, batches: list[Batch]) -> None:
        """Remove batches that were stored."""
        with self._lock:
            self._pending = self._pending[len(batches) :]
            self._pending_points -= sum(map(_size, batches))


class HeartbeatThread(threading.Thread):
    """Sends heartbeats every `beat_seconds` until `stop()`."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._worker_id = worker_id
        self._states: dict[UUID, AttemptState] = {}
        self._beating = threading.Lock()
        self._stopped = threading.Event()

    def register(self, claim: Claim) -> AttemptState:
        """Start sending heartbeats for a job."""
        state = AttemptState(claim)
        with self._beating:
            if claim.job_id in self._states:  # requeued and claimed again by this worker: stop the old attempt
                self._states[claim.job_id].instruction = Instruction.LOST
            self._states[claim.job_id] = state
        return state

    def unregister(self, state: AttemptState) -> None:
        """Stop sending heartbeats for a job; returns when none is in progress."""
        with self._beating:
            if self._states.get(state.claim.job_id) is state:
                del self._states[state.claim.job_id]

    def stop(self) -> None:
        """End the thread after its current heartbeat."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Send heartbeats."""
        while not self._stopped.wait(settings().beat_seconds):
            try:
                with self._beating:
                    self._beat()
            except Exception as error:  # the thread must survive any error: without heartbeats all jobs are lost
                expected = is_away(error) or is_locked(error)
                log.warning("heartbeat not stored, retrying: %s", error, exc_info=not expected)

    def _beat(self) -> None:
        states = list(self._states.values())
        try:
            self._send(states)
        except Exception as error:
            if is_away(error) or len(states) < 2:
                raise
            log.warning("heartbeat of %d jobs not stored, sending one by one: %s", len(states), error)
            self._send_one_by_one(states)

    def _send_one_by_one(self, states: list[AttemptState]) -> None:
        """Send a heartbeat per job, so that invalid data or a locked row of one job does not affect the others."""
        for state in states:
            try:
                self._send([state])
            except Exception as error:
                if is_away(error):
                    raise
                log.warning("job %s: heartbeat not stored", state.claim.job_id, exc_info=not is_locked(error))

    def _send(self, states: list[AttemptState]) -> None:
        pending = [(state, _first(state.seal())) for state in states]
        beats = [Beat(state.claim, state.step, state.total_steps, batches, state.message) for state, batches in pending]
        with transaction() as session:
            limit_lock_wait(session)
            instructions = heartbeats.beat(session, self._worker_id, beats)
        for state, batches in pending:
            state.mark_stored(batches)
            if state.instruction is not Instruction.LOST:
                state.instruction = instructions[state.claim.job_id]


def retry_while_database_is_down(write: Callable[[Session], Result], give_up: Callable[[], bool]) -> Result | None:
    """Run `write` in a transaction, and retry while the database is unavailable; None once `give_up` returns True.

    Other errors are raised.
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
            log.warning("database unavailable, retrying: %s", str(error).splitlines()[0])
            if give_up():
                return None
            pause.wait(wait_seconds)
            wait_seconds = min(2 * wait_seconds, 5.0)


def is_away(error: Exception) -> bool:
    """Whether the database is unavailable (unreachable, shutting down or full), as opposed to rejecting a statement."""
    if is_locked(error):
        return False
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    # COPY raises psycopg's own errors, which SQLAlchemy does not wrap
    return isinstance(error, PoolTimeout | psycopg.OperationalError)
