"""`/v1/workers` and `/v1/overview`: state of workers and queue."""

from __future__ import annotations

from fastapi import APIRouter

from service.jobs import workers
from service.operations import overview
from service.web.dependencies import Caller, Database

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/workers", response_model=workers.Workers, summary="List workers")
def show_workers(session: Database, _: Caller) -> workers.Workers:
    """Workers of the last 24 hours: devices, state and running jobs."""
    return workers.workers(session)


@router.get("/overview", response_model=overview.Overview, summary="Show an overview")
def show_overview(session: Database, _: Caller) -> overview.Overview:
    """Running and queued jobs by user, busy slots, and the newest comparisons with their verdicts."""
    return overview.overview(session)
