"""The application: routes, error handlers, middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.config import settings
from service.specs.bodies import Problem
from service.streams.hub import Hub
from service.web import problem_details
from service.web.middleware import BodyLimit, RequestId, Turns
from service.web.routes import (
    artifacts,
    catalog,
    compare,
    comparisons,
    curves,
    dashboard,
    datasets,
    events,
    health,
    jobs,
    keys,
    leaderboard,
    plots,
    workers,
)

MOST_REQUESTS = 32
"""Worked on at once by one process."""
DESCRIPTION = """
Training as a service for people who compare neural-network optimizers on a shared lab GPU server.

Every call but `/healthz` and `/readyz` needs `Authorization: Bearer KEY`. Errors are `application/problem+json`
(RFC 9457) and name each wrong field by its JSON pointer.
"""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Hub]]:
    """The server, too, gets the hub of the streams: it waits for open answers before it ends the application."""
    app.state.hub = Hub()
    yield {"hub": app.state.hub}
    app.state.hub.close()


def create_app() -> FastAPI:
    """A new application; it reads `settings()` and opens nothing until the first request."""
    app = FastAPI(
        title="kotrain",
        version="1",
        description=DESCRIPTION,
        lifespan=_lifespan,
        responses={"4XX": {"model": Problem, "content": {problem_details.MEDIA_TYPE: {}}}},
    )
    for part in (
        jobs, artifacts, comparisons, curves, events, compare, leaderboard, catalog, datasets, health,
        workers, keys, plots, dashboard,
    ):  # fmt: skip
        app.include_router(part.router)
    app.router.default = dashboard.Lost(app.router.default)
    app.state.hub = Hub()  # replaced where there is a lifespan
    problem_details.install(app)
    app.add_middleware(Turns, most=MOST_REQUESTS, free=datasets.STREAMING | {"GET /healthz"})
    app.add_middleware(BodyLimit, max_bytes=settings().max_body_bytes, streaming=datasets.STREAMING)
    app.add_middleware(RequestId)
    return app
