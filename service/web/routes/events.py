"""`/v1/jobs/{id}/events`, `/v1/comparisons/{id}/events`, `/v1/events`: streams of server-sent events."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import Field

from service.accounts import api_keys
from service.comparisons import lifecycle
from service.jobs import lookup
from service.storage.database import transaction
from service.streams import event_feed, feed, job_feed, response
from service.web.dependencies import Authorization, PassingComparisonId, PassingJobId, StrictQuery

router = APIRouter(tags=["events"])
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {response.MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "Server-sent events."},
    204: {"description": "The stream has ended; no events follow `Last-Event-ID`."},
}
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Id of the last event received; the stream resumes after it.")
]


class StreamQuery(StrictQuery):
    """Options of a job's stream."""

    max_points: int | None = Field(
        None,
        ge=4,
        le=1_000_000,
        description="Downsample each past curve to at most this many points; ignored on resume.",
    )


class Subscription(NamedTuple):
    """A feed, and the API key that gives access to it, with its user."""

    feed: feed.Feed[Any]
    key_id: UUID
    user_id: UUID


# Each of these dependencies opens and closes its own session within one thread. The session of `Database` would stay
# open until the endpoint returns. If 100 clients reconnected simultaneously, requests that hold a connection would wait
# for a thread, and requests that hold a thread would wait for a connection.


class _Key(NamedTuple):
    key_id: UUID
    user_id: UUID


def _key(authorization: Authorization) -> _Key:
    """The key of the request, which is looked at before its other parameters."""
    with transaction() as session:
        key = api_keys.authenticated_key(session, authorization)
        return _Key(key.id, key.user_id)


Key = Annotated[_Key, Depends(_key)]


def _job(key: Key, job_id: PassingJobId, query: Annotated[StreamQuery, Query()]) -> Subscription:
    with transaction() as session:
        lookup.get(session, job_id)
    return Subscription(job_feed.JobFeed(job_id, query.max_points), *key)


def _comparison(key: Key, comparison_id: PassingComparisonId, _: Annotated[StrictQuery, Query()]) -> Subscription:
    with transaction() as session:
        lifecycle.get(session, comparison_id)
    return Subscription(event_feed.ComparisonFeed(comparison_id), *key)


def _everything(key: Key, _: Annotated[StrictQuery, Query()]) -> Subscription:
    return Subscription(event_feed.AllFeed(), *key)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=Response,
    responses=ANSWERS,
    tags=["jobs"],
    summary="Stream the events of a job",
)
async def listen_to_job(
    request: Request, subscription: Annotated[Subscription, Depends(_job)], last_event_id: LastEventId = None
) -> Response:
    """Server-sent events from the job's submission on: `status`, `log`, `metric` (points), and finally `end`."""
    return response.open_stream(request.app.state.hub, *subscription, last_event_id)


@router.get(
    "/v1/comparisons/{comparison_id}/events",
    response_class=Response,
    responses=ANSWERS,
    tags=["comparisons"],
    summary="Stream the events of a comparison",
)
async def listen_to_comparison(
    request: Request, subscription: Annotated[Subscription, Depends(_comparison)], last_event_id: LastEventId = None
) -> Response:
    """Server-sent events of a comparison and its jobs from now on: `status`, `log`, `metric` (progress), `end`."""
    return response.open_stream(request.app.state.hub, *subscription, last_event_id)


@router.get("/v1/events", response_class=Response, responses=ANSWERS, summary="Stream all events")
async def listen(
    request: Request, subscription: Annotated[Subscription, Depends(_everything)], last_event_id: LastEventId = None
) -> Response:
    """Server-sent events of all jobs and comparisons from now on: `status`, `log`, `metric` (progress)."""
    return response.open_stream(request.app.state.hub, *subscription, last_event_id)
