"""Wake-up messages over Celery, which make idle slots of workers look for a job.

A message carries no job. It wakes one slot of one worker, which claims the best queued job from PostgreSQL; a message
that is lost, duplicated or redelivered (celery/celery#5935) therefore neither loses nor duplicates a job.
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

MESSAGE_SECONDS = 60.0
"""Expiry of a message; by then, maintenance has sent another one, or no worker is up."""
PAUSE_SECONDS = 2.0
"""Pause after a failure to reach the broker."""

log = logging.getLogger(__name__)
_paused_until = 0.0


def queue_of(worker_id: str) -> str:
    """The queue of a single worker, used by its maintenance thread."""
    return f"kotrain.worker.{worker_id}"


@lru_cache(maxsize=1)
def celery() -> Celery:
    """The Celery application, created on first use, when the settings of the process are complete."""
    app = Celery("kotrain", broker=settings().broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,  # claims and maintenance recover lost jobs, which late acknowledgement does not
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        task_default_queue=ANY_WORKER,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Celery gives up after 100 by default
        broker_transport_options={"socket_connect_timeout": 1.0, "socket_timeout": 5.0, "max_retries": 0},
    )
    return app


def wake(queue: str = ANY_WORKER, times: int = 1) -> bool:
    """Wake `times` slots that listen to `queue`. Returns False if the broker is down; maintenance repeats it later.

    After a failure, no message is sent for `PAUSE_SECONDS`, because a broker that hangs would delay each submission.
    """
    global _paused_until  # a process has one broker
    if time.monotonic() < _paused_until:
        return False
    try:
        for _ in range(times):
            celery().send_task(TASK, queue=queue, expires=MESSAGE_SECONDS)
    except (OperationalError, ConnectionError, OSError) as error:
        log.warning("broker down, no worker woken: %s", error)
        _paused_until = time.monotonic() + PAUSE_SECONDS
        return False
    return True


def is_up() -> bool:
    """Whether the broker responds."""
    try:
        with celery().connection_for_write(connect_timeout=1.0) as connection:
            client: Any = connection.default_channel.client
            return bool(client.ping())
    except Exception:  # the transport may raise anything
        return False
