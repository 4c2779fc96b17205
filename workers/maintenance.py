"""Maintenance: requeues jobs of lost workers, submits the next runs of comparisons and wakes idle slots; a separate
thread removes expired data, which may take long.

Threads rather than Celery beat or tasks, which long tasks on all slots would starve.
"""

from __future__ import annotations

import logging
import threading
import time
from types import ModuleType
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from service.comparisons.running import running
from service.config import settings
from service.errors import KotrainError
from service.jobs import claims, heartbeats, outcomes, queue
from service.operations import retention
from service.storage.database import is_locked, limit_lock_wait, transaction
from service.storage.tables import Worker
from workers.heartbeat import is_away, retry_while_database_is_down
from workers.host import Host

log = logging.getLogger(__name__)

FIRST_SWEEP_SECONDS, SWEEP_SECONDS = 60.0, 3600.0
MAX_MESSAGE = 2000
"""Maximum length of a comparison's error message, in characters."""


class Maintenance(threading.Thread):
    """Runs at the start, every `maintenance_seconds` and whenever a job has ended, until `stop()`."""

    def __init__(self, host: Host) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._host = host
        self._stopped = threading.Event()
        self._away_at = float("-inf")

    def stop(self) -> None:
        """End the thread after its current run."""
        self._stopped.set()
        self._host.job_ended.set()
        self.join()

    def run(self) -> None:
        """Run maintenance."""
        while not self._stopped.is_set():
            try:
                # After an outage of the database, all workers first get a lease to send heartbeats again.
                if time.monotonic() - self._away_at > settings().lease_seconds:
                    reclaim_stale_jobs()
                advance_comparisons()
                self.wake_idle_slots()
            except Exception as error:  # the thread must survive any error
                log.warning("maintenance postponed: %s", error, exc_info=not is_away(error))
                if is_away(error):
                    self._away_at = time.monotonic()
            self._host.job_ended.wait(settings().maintenance_seconds)
            self._host.job_ended.clear()  # before the next run, so that a job that ends during it triggers another

    def wake_idle_slots(self) -> None:
        """Wake as many idle slots of this worker as there are eligible jobs; makes up for lost wake-up messages."""
        idle = self._host.idle_slots
        if idle == 0 or self._host.draining.is_set():
            return
        with transaction() as session:
            eligible = claims.count_eligible(session, idle, has_cuda=self._host.has_cuda)
        if eligible:
            queue.wake(queue.queue_of(self._host.id), times=eligible)


class RetentionThread(threading.Thread):
    """Removes expired data, first after a minute, then every hour, until `stop()`."""

    def __init__(self) -> None:
        super().__init__(name="retention", daemon=True)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread after its current transaction, without waiting: it can be interrupted anywhere."""
        self._stopped.set()

    def run(self) -> None:
        """Remove expired data."""
        wait_seconds = FIRST_SWEEP_SECONDS
        while not self._stopped.wait(wait_seconds):
            retention.sweep(self._stopped.is_set)
            wait_seconds = SWEEP_SECONDS


def reclaim_stale_jobs() -> None:
    """Requeue the jobs of workers that send no heartbeats; one worker at a time does it for all.

    First end the transactions of frozen workers, which may hold this very lock.
    """
    with transaction() as session:
        if ended := heartbeats.end_stale_transactions(session):
            log.warning("ended %d transactions of workers without a heartbeat", ended)
    with transaction() as session:
        limit_lock_wait(session)
        if session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtext("kotrain.maintenance")))):
            for job_id in outcomes.reclaim_stale(session):
                log.warning("job %s: requeued, its worker sent no heartbeat", job_id)


def advance_comparisons() -> None:
    """Submit the next runs of all comparisons, each in its own transaction, so that none delays the others."""
    with transaction() as session:
        comparison_ids = running(session)
    if not comparison_ids:
        return
    try:
        from service.comparisons import lifecycle  # noqa: PLC0415 (with numpy and scipy, when one is running)
    except Exception:  # kotrain is being upgraded, or memory is short: not the fault of a comparison
        log.exception("comparisons are not advanced: an import failed; if it fails again, restart the worker")
        return
    for comparison_id in comparison_ids:
        try:
            with transaction() as session:
                limit_lock_wait(session)
                lifecycle.advance_one(session, comparison_id)
        except Exception as error:
            if is_away(error):
                raise
            if is_locked(error):
                log.warning("comparison %s: postponed, its rows are locked by another transaction", comparison_id)
                continue
            log.exception("comparison %s: cannot be advanced", comparison_id)
            fail(lifecycle, comparison_id, error)


def fail(lifecycle: ModuleType, comparison_id: UUID, error: Exception) -> None:
    """Mark a comparison as failed, because its error would occur again."""
    message = error.detail if isinstance(error, KotrainError) else f"{type(error).__name__}: {error}"
    try:
        with transaction() as session:
            lifecycle.fail(session, comparison_id, message[:MAX_MESSAGE])
    except Exception as store_error:
        if is_away(store_error):
            raise
        log.exception("comparison %s: failure could not be stored", comparison_id)


def register(host: Host) -> None:
    """Register the worker and its devices, waiting for the database if necessary."""
    row = {"host": host.name, "slots": host.slots, "devices": host.devices, "torch": host.torch}
    statement = insert(Worker).values(id=host.id, **row).on_conflict_do_update(index_elements=[Worker.id], set_=row)
    retry_while_database_is_down(lambda session: session.execute(statement), give_up=lambda: False)


def sign_off(host: Host) -> None:
    """Record a clean shutdown of the worker."""
    now = func.clock_timestamp()
    statement = insert(Worker).values(
        id=host.id, host=host.name, slots=host.slots, devices=host.devices, torch=host.torch
    )
    statement = statement.on_conflict_do_update(index_elements=[Worker.id], set_={"stopped_at": now})
    retry_while_database_is_down(lambda session: session.execute(statement), give_up=lambda: True)
