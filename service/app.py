"""The application: routes, error handlers, middleware."""

from __future__ import annotations

from fastapi import FastAPI

from service import problems
from service.config import settings
from service.middleware import BodyLimit, RequestId
from service.routes import catalog, compare, comparisons, health, jobs, leaderboard
from service.schemas import Problem

DESCRIPTION = """
Training as a service for people who compare neural-network optimizers on a shared lab GPU server.

Every call but `/healthz` and `/readyz` needs `Authorization: Bearer KEY`. Errors are `application/problem+json`
(RFC 9457) and name each wrong field by its JSON pointer.
"""


def create_app() -> FastAPI:
    """A new application; it reads `settings()` and opens nothing until the first request."""
    app = FastAPI(
        title="kotrain",
        version="1",
        description=DESCRIPTION,
        responses={"4XX": {"model": Problem, "content": {problems.MEDIA_TYPE: {}}}},
    )
    for part in (jobs, comparisons, compare, leaderboard, catalog, health):
        app.include_router(part.router)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings().max_body_bytes)
    app.add_middleware(RequestId)
    return app
