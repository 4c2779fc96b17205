"""`/healthz` (the process responds) and `/readyz` (so do its dependencies), for load balancers, without a key."""

from __future__ import annotations

import time
from threading import Lock

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from service.jobs import queue
from service.specs.bodies import Health
from service.storage import database
from service.storage.schema_version import Incompatible

router = APIRouter(tags=["operations"])
REMEMBERED_SECONDS = 1.0


@router.get("/healthz", summary="Liveness probe")
async def healthz() -> dict[str, str]:
    """200 while the process responds."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}}, summary="Readiness probe")
def readyz(response: Response) -> Health:
    """State of the service and its dependencies.

    `ok`: all are up. `degraded`: the broker is down; jobs are accepted and start with a delay. `down` (503): `database`
    is `down`, `read-only`, or `incompatible` (its schema does not match this version).
    """
    health = _CHECK()
    if health.status == "down":
        response.status_code = 503
    return health


class _Check:
    """The state of the dependencies, looked up once a second: each lookup opens a connection to both servers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at, self._health = float("-inf"), Health(status="down", database="down", broker="down")

    def __call__(self) -> Health:
        with self._lock:
            if time.monotonic() - self._at >= REMEMBERED_SECONDS:
                self._health = _health()
                self._at = time.monotonic()
            return self._health


_CHECK = _Check()


def _health() -> Health:
    broker = "up" if queue.is_up() else "down"
    try:
        database.check_schema()
        is_read_only = database.is_read_only()
    except (SQLAlchemyError, Incompatible) as error:
        state = "incompatible" if isinstance(error, Incompatible) else "down"
        return Health(status="down", database=state, broker=broker)
    if is_read_only:
        return Health(status="down", database="read-only", broker=broker)
    return Health(status="ok" if broker == "up" else "degraded", database="up", broker=broker)
