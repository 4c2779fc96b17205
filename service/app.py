"""The application: routes, error handlers, middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.accounts import api_keys
from service.config import settings
from service.datasets.uploads.upload import STREAMING, remove_leftovers
from service.specs.bodies import Problem
from service.streams.hub import Hub
from service.web import problem_details
from service.web.budgets import BudgetLimit, Budgets
from service.web.dependencies import passing_caller
from service.web.hosts import KnownHosts
from service.web.middleware import (
    BodyLimit,
    ConcurrencyLimit,
    HeadAsGet,
    KeyFirst,
    OneLength,
    Pieces,
    RequestId,
    RequestTurns,
)
from service.web.path_prefix import PathPrefix
from service.web.routes import (
    artifacts,
    catalog,
    code,
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

MAX_REQUESTS = 16
"""Requests that one process works on at a time."""
KEYS_SECONDS = 1.0
"""Interval at which keys are looked up that were refused as unknown."""
DESCRIPTION = """
Training as a service for people who compare neural-network optimizers on a shared lab GPU server.

All endpoints except `/healthz` and `/readyz` require the header `Authorization: Bearer KEY`. Errors are
`application/problem+json` (RFC 9457) and give the JSON pointer of each invalid field.
"""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Create and close the hub of the event streams.

    The server uses the hub to end open streams at shutdown, and `refusal` to refuse requests before it parses them.

    Uploads that ended with an earlier process are deleted.
    """
    with suppress(OSError):  # the data folder may be read-only, or not mounted yet
        await run_in_threadpool(remove_leftovers, settings().data)
    app.state.hub = Hub()
    keys_watch = asyncio.create_task(_remember_keys(app.state.budgets))
    yield {"hub": app.state.hub, "refusal": app.state.budgets.refusal}
    keys_watch.cancel()
    app.state.hub.close()


async def _remember_keys(budgets: Budgets) -> None:
    """Know all keys from the start, and those made by another process since then, before a limit applies to them."""
    budgets.has_refused_key = settings().database_url is not None
    while True:
        if budgets.has_refused_key:
            budgets.has_refused_key = False
            try:
                await run_in_threadpool(api_keys.remember_all)
            except SQLAlchemyError:  # the database may start later
                budgets.has_refused_key = True
        await asyncio.sleep(KEYS_SECONDS)


def create_app() -> FastAPI:
    """A new application. It reads `settings()` and connects to nothing before the first request."""
    app = FastAPI(
        title="kotrain",
        version="1",
        servers=[{"url": prefix}] if (prefix := settings().path_prefix) else None,
        description=DESCRIPTION,
        openapi_url=None,  # served compressed, and from memory
        docs_url=None,  # served by the dashboard, without other hosts
        redoc_url=None,
        redirect_slashes=False,  # their targets have the scheme and the path that the server sees, not a proxy's
        lifespan=_lifespan,
        responses={
            "4XX": {
                "model": Problem,
                "description": "Client error; see Problem",
                "content": {problem_details.MEDIA_TYPE: {}},
            }
        },
    )
    for module in (
        jobs, artifacts, comparisons, curves, events, compare, leaderboard, catalog, code, datasets, health,
        workers, keys, plots, dashboard,
    ):  # fmt: skip
        app.include_router(module.router)
    app.router.default = dashboard.NotFoundPage(app.router.default)
    app.state.hub = Hub()  # for tests that run no lifespan, which replaces it
    app.state.budgets = Budgets(api_keys.known_user)
    problem_details.install(app)
    turns = RequestTurns(MAX_REQUESTS, api_keys.known_user)
    app.add_middleware(ConcurrencyLimit, turns=turns, exempt=frozenset({"GET /healthz"}))
    app.add_middleware(BodyLimit, max_bytes=settings().max_body_bytes, streaming=STREAMING)
    app.add_middleware(
        KeyFirst, find_key=api_keys.key_in, authenticate=passing_caller, turns=turns, streaming=STREAMING
    )
    app.add_middleware(BudgetLimit, budgets=app.state.budgets, streaming=STREAMING)
    app.add_middleware(Pieces)
    app.add_middleware(HeadAsGet)
    app.add_middleware(KnownHosts, names=settings().hosts)
    app.add_middleware(OneLength)
    app.add_middleware(RequestId)
    app.add_middleware(PathPrefix, prefix=prefix)
    return app
