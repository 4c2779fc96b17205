"""`/v1/jobs/{id}/events`, `/v1/comparisons/{id}/events`, `/v1/events`: what happens, as it happens."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import Field

from service import jobs, live
from service.errors import NotFound
from service.models import Comparison
from service.routes.parts import Caller, Database, StrictQuery

router = APIRouter(tags=["events"])
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {live.MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "Server-Sent Events."},
    204: {"description": "All was told: there is nothing to resume."},
}
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The id of the event that was told last: goes on behind it.")
]


class StreamQuery(StrictQuery):
    """How to tell what has been measured already."""

    max_points: int | None = Field(
        None, ge=4, le=1_000_000, description="Thin each curve so far out to so many, where nothing is resumed."
    )


# These run in threads, and their sessions end before the stream begins.


def _job(session: Database, _: Caller, job_id: UUID, query: Annotated[StreamQuery, Query()]) -> live.JobFeed:
    jobs.get(session, job_id)
    return live.JobFeed(job_id, query.max_points)


def _comparison(
    session: Database, _: Caller, comparison_id: UUID, __: Annotated[StrictQuery, Query()]
) -> live.ComparisonFeed:
    if session.get(Comparison, comparison_id) is None:
        raise NotFound(f"there is no comparison {comparison_id}")
    return live.ComparisonFeed(comparison_id)


def _everything(_: Caller, __: Annotated[StrictQuery, Query()]) -> live.AllFeed:
    return live.AllFeed()


@router.get("/v1/jobs/{job_id}/events", response_class=Response, responses=ANSWERS, tags=["jobs"])
async def listen_to_job(
    request: Request, feed: Annotated[live.JobFeed, Depends(_job)], last_event_id: LastEventId = None
) -> Response:
    """What happens to a job, from its beginning: `status`, `log`, `metric` (points), at last `end`."""
    return live.open_stream(request.app.state.hub, feed, last_event_id)


@router.get("/v1/comparisons/{comparison_id}/events", response_class=Response, responses=ANSWERS, tags=["comparisons"])
async def listen_to_comparison(
    request: Request, feed: Annotated[live.ComparisonFeed, Depends(_comparison)], last_event_id: LastEventId = None
) -> Response:
    """What happens to a comparison and its jobs, from now on: `status`, `log`, `metric` (progress), at last `end`."""
    return live.open_stream(request.app.state.hub, feed, last_event_id)


@router.get("/v1/events", response_class=Response, responses=ANSWERS)
async def listen(
    request: Request, feed: Annotated[live.AllFeed, Depends(_everything)], last_event_id: LastEventId = None
) -> Response:
    """What happens to all jobs and comparisons, from now on: `status`, `log`, `metric` (progress)."""
    return live.open_stream(request.app.state.hub, feed, last_event_id)
