"""The Celery task: a bell that wakes a slot, which then claims and runs jobs until there is none for it."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import worker_ready, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from service.config import settings
from service.jobs import claims, queue
from service.storage import schema_version
from service.storage.database import tag_connections, transaction
from service.storage.schema_version import Incompatible
from workers.heartbeat import Relay, retry_while_database_is_down
from workers.host import Host, this_host
from workers.maintenance import Maintenance, Sweeping, register, sign_off
from workers.process import preload_engine
from workers.supervisor import supervise

log = logging.getLogger(__name__)


def make_task(host: Host, relay: Relay) -> None:
    """Define the task `work` on the Celery application."""

    @queue.celery().task(name=queue.TASK)  # type: ignore[untyped-decorator] # Celery ships no types
    def work() -> None:
        while not host.draining.is_set():
            try:
                with transaction() as session:
                    claim = claims.claim(session, host.id, has_cuda=host.has_cuda)
            except SQLAlchemyError as away:
                log.warning("no job claimed, maintenance rings again: %s", str(away).splitlines()[0])
                return
            if claim is None:
                return
            log.info("job %s: attempt %d", claim.job_id, claim.attempt)
            if not supervise(claim, host, relay):
                return  # maintenance rings again, which paces a machine that is in trouble


def serve() -> int:
    """Run the worker until it is told to stop; its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    host = this_host()
    tag_connections(host.id, settings().lease_seconds / 2)
    try:
        retry_while_database_is_down(lambda session: schema_version.check(session.connection()), give_up=lambda: False)
    except Incompatible as refusal:
        log.error("%s", refusal)
        return 1
    relay, maintenance, sweeping = Relay(host.id), Maintenance(host), Sweeping()
    make_task(host, relay)

    def load(**_: Any) -> None:
        preload_engine()

    def drain(**_: Any) -> None:
        host.draining.set()

    # Celery's warm shutdown waits for running tasks without limit: they have to end themselves.
    worker_shutting_down.connect(drain, weak=False)
    worker_ready.connect(load, weak=False)
    register(host)
    relay.start()
    maintenance.start()
    sweeping.start()
    queues = [queue.ANY_WORKER, queue.queue_of(host.id), *([queue.CUDA_WORKERS] if host.has_cuda else [])]
    worker = queue.celery().Worker(
        pool="threads",
        concurrency=host.slots,
        queues=queues,
        hostname=f"kotrain@{host.id}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="INFO",
        redirect_stdouts=False,
    )
    log.info("worker %s: %d slots, devices %s", host.id, host.slots, host.devices)
    worker.start()
    host.draining.set()
    maintenance.stop()
    sweeping.stop()
    relay.stop()
    sign_off(host)
    return int(worker.exitcode or 0)
