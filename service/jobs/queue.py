"""The doorbell: the only Celery object.

A message carries no job. It wakes one slot of one worker, and the slot claims the best queued job from Postgres; so a
lost, doubled or redelivered message neither loses nor doubles a job (celery/celery#5935).
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from service.config import settings

TASK = "kotrain.work"
ANY_WORKER = "kotrain"
CUDA_WORKERS = "kotrain.cuda"

BELL_SECONDS = 60.0
"""A bell that nobody heard for so long is worth nothing; maintenance has rung since, or there is no worker."""
SILENCE_SECONDS = 2.0

log = logging.getLogger(__name__)
_silent_until = 0.0


def queue_of(worker_id: str) -> str:
    """The queue that only this worker listens to; its maintenance thread rings there."""
    return f"kotrain.worker.{worker_id}"


@lru_cache(maxsize=1)
def celery() -> Celery:
    """The Celery application, made on first use so that the settings of this process are complete."""
    app = Celery("kotrain", broker=settings().broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,  # claim and maintenance do what late acknowledgement promises and does not keep
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        task_default_queue=ANY_WORKER,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Celery's own default gives up for ever after 100
        broker_transport_options={"socket_connect_timeout": 1.0, "socket_timeout": 5.0, "max_retries": 0},
    )
    return app


def ring(queue: str = ANY_WORKER, times: int = 1) -> bool:
    """Wake `times` slots that listen to `queue`; False where the broker is away (maintenance rings again later).

    After a failure no bell is tried for some seconds: a broker that hangs would hold up each submission.
    """
    global _silent_until  # one process, one broker
    if time.monotonic() < _silent_until:
        return False
    try:
        for _ in range(times):
            celery().send_task(TASK, queue=queue, expires=BELL_SECONDS)
    except (OperationalError, ConnectionError, OSError) as away:
        log.warning("broker away, bell not rung: %s", away)
        _silent_until = time.monotonic() + SILENCE_SECONDS
        return False
    return True


def is_up() -> bool:
    """Whether the broker answers."""
    try:
        with celery().connection_for_write(connect_timeout=1.0) as connection:
            client: Any = connection.default_channel.client
            return bool(client.ping())
    except Exception:  # whatever the transport raises, the answer to this question is no
        return False
