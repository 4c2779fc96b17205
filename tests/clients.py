"""The API in this process, called over ASGI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app

_idle: list[FastAPI] = []


@contextmanager
def application() -> Iterator[FastAPI]:
    """An application that no other test uses.

    It resolves its routes on their first request, which takes 50 ms, so tests reuse it, unless one failed. Its
    middleware is rebuilt: a semaphore belongs to the event loop of one test. What `create_app` reads from the settings,
    such as the limit of a body, stays that of the first test.
    """
    app = _idle.pop() if _idle else create_app()
    app.middleware_stack = None
    app.state.budgets.refill()
    yield app
    _idle.append(app)


@contextmanager
def client(key: str) -> Iterator[TestClient]:
    """A client of the API with this key; server errors are responses, not exceptions."""
    with application() as app, TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client
