"""The Celery task: wakes a slot, which then claims and runs jobs until none is eligible."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery.signals import worker_ready, worker_shutting_down
from celery.worker.consumer import Consumer
from sqlalchemy.exc import SQLAlchemyError

from service.config import settings
from service.jobs import claims, queue
from service.storage import schema_version
from service.storage.database import tag_connections, transaction
from service.storage.schema_version import Incompatible
from workers.code_check import CodeCheckThread
from workers.heartbeat import HeartbeatThread, retry_while_database_is_down
from workers.host import Host, this_host
from workers.maintenance import Maintenance, RetentionThread, register, sign_off
from workers.process import EngineError, Process, check_engine, preload_engine
from workers.supervisor import supervise

log = logging.getLogger(__name__)


def make_task(host: Host, heartbeat_thread: HeartbeatThread, code_checks: CodeCheckThread) -> None:
    """Define the Celery task `work`."""

    @queue.celery().task(name=queue.TASK)  # type: ignore[untyped-decorator] # Celery ships no types
    def work() -> None:
        code_checks.wake()
        while not host.draining.is_set():
            try:
                with transaction() as session:
                    claim = claims.claim(session, host.id, has_cuda=host.has_cuda)
            except SQLAlchemyError as error:
                log.warning("no job claimed, maintenance will retry: %s", str(error).splitlines()[0])
                return
            if claim is None:
                return
            log.info("job %s: attempt %d", claim.job_id, claim.attempt)
            if not supervise(claim, host, heartbeat_thread):
                return  # maintenance wakes the slot again later, which limits retries on a broken machine


def _check_engine(host: Host, request: Process) -> None:
    """Stop the worker if the training engine cannot be imported or leaves no memory for jobs: none would run here."""
    try:
        host.engine_bytes = check_engine(request)
    except EngineError as error:
        host.fail(str(error))
        return
    if refusal := host.job_memory.refusal:
        host.fail("; ".join(refusal))
    elif warning := host.job_memory.warning:
        log.warning("%s", warning)


def serve() -> int:
    """Run the worker until a shutdown signal and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        host = this_host()
        tag_connections(host.id, settings().lease_seconds / 2)
        retry_while_database_is_down(lambda session: schema_version.check(session.connection()), give_up=lambda: False)
    except (EngineError, Incompatible) as refusal:
        log.error("%s", refusal)
        return 1
    if too_little := host.job_memory.refusal:  # by the usual size of the engine, which is measured later
        log.error("%s", "; ".join(too_little))
        return 1
    heartbeat_thread, maintenance, retention_thread = HeartbeatThread(host.id), Maintenance(host), RetentionThread()
    code_checks = CodeCheckThread(host)
    make_task(host, heartbeat_thread, code_checks)
    _connect_signals(host)
    register(host)
    heartbeat_thread.start()
    maintenance.start()
    retention_thread.start()
    code_checks.start()
    worker = _celery_worker(host)
    log.info("worker %s: %d slots, devices %s", host.id, host.slots, host.devices)
    worker.start()
    host.draining.set()
    code_checks.stop()
    maintenance.stop()
    retention_thread.stop()
    heartbeat_thread.stop()
    sign_off(host)
    if host.failure is not None:
        log.error("%s", host.failure)
        return 1
    return int(worker.exitcode or 0)


def _connect_signals(host: Host) -> None:
    """Import the engine once the worker is ready, and drain it when it shuts down."""

    def load(**_: Any) -> None:
        threading.Thread(target=_check_engine, args=[host, preload_engine()], name="engine", daemon=True).start()

    def drain(**_: Any) -> None:
        host.draining.set()

    worker_ready.connect(load, weak=False)
    # Celery's warm shutdown waits for running tasks without limit: tasks end when `draining` is set.
    worker_shutting_down.connect(drain, weak=False)


def _consumer(host: Host) -> type[Consumer]:
    """The consumer of wake-up messages, which starts again after any error, and drains the worker if it ends.

    Celery's starts again after errors of the connection only. After any other, such as an item in the broker that is no
    message, it would take no more messages but wait until all running jobs have ended.
    """

    class Restarting(Consumer):  # type: ignore[misc] # Celery ships no types
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.connection_errors = (Exception,)

        def start(self) -> None:
            try:
                super().start()
            finally:
                host.draining.set()

        def on_connection_error_after_connected(self, error: Exception) -> None:
            log.warning("wake-up messages: starting again after %s: %s", type(error).__name__, error)
            super().on_connection_error_after_connected(error)

    return Restarting


def _celery_worker(host: Host) -> Any:
    """The Celery worker, with a thread for each slot."""
    queues = [queue.ANY_WORKER, queue.queue_of(host.id), *([queue.CUDA_WORKERS] if host.has_cuda else [])]
    return queue.celery().Worker(
        pool="threads",
        concurrency=host.slots,
        queues=queues,
        consumer_cls=_consumer(host),
        hostname=f"kotrain@{host.id}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="INFO",
        redirect_stdouts=False,
        quiet=True,  # it would end with the banner if the disk of its log is full
    )
