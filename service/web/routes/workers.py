"""`/v1/workers` and `/v1/overview`: what works, on what, and how much waits."""

from __future__ import annotations

from fastapi import APIRouter

from service.jobs import workers
from service.operations import overview
from service.web.dependencies import Caller, Database

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/workers", response_model=workers.Workers)
def show_workers(session: Database, _: Caller) -> workers.Workers:
    """The workers of the last day: their devices, whether they are up, and the jobs that they run."""
    return workers.workers(session)


@router.get("/overview", response_model=overview.Overview)
def show_overview(session: Database, _: Caller) -> overview.Overview:
    """What runs, who waits, and the newest verdicts, in one small answer."""
    return overview.overview(session)
