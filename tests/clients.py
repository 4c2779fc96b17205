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
    """An application that no other test is using.

    It resolves its routes on their first request, which takes 50 ms, so tests hand it on. Its middleware is built anew:
    a semaphore belongs to the event loop of one test.
    """
    app = _idle.pop() if _idle else create_app()
    app.middleware_stack = None
    yield app
    _idle.append(app)


@contextmanager
def client(key: str) -> Iterator[TestClient]:
    """The API, called with this key; an error of the server is an answer."""
    with application() as app, TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client
