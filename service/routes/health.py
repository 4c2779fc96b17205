"""`/healthz` (the process lives) and `/readyz` (its parts do); without a key, for load balancers."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from service import db, queue
from service.schemas import Health

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
def readyz(response: Response) -> Health:
    """`ok`; `degraded` without the broker (jobs are accepted and start late); `down`, 503, without the database."""
    broker = "up" if queue.is_up() else "down"
    try:
        db.is_up()
    except SQLAlchemyError:
        response.status_code = 503
        return Health(status="down", database="down", broker=broker)
    return Health(status="ok" if broker == "up" else "degraded", database="up", broker=broker)
