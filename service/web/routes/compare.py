"""`/v1/compare`: compare stored jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.comparisons import stored_jobs
from service.comparisons.answers import CompareAnswer
from service.comparisons.stored_jobs import CompareQuery
from service.web.dependencies import Caller, Database

router = APIRouter(prefix="/v1/compare", tags=["compare"])


@router.get("", response_model=CompareAnswer, summary="Compare stored jobs")
def compare(session: Database, _: Caller, query: Annotated[CompareQuery, Query()]) -> CompareAnswer:
    """Group the finished jobs of one setting by a field of their spec, and compare the groups, paired by seed."""
    return stored_jobs.compare(session, query)
