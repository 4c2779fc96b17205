"""A server on a real port, in a thread of this process, and listeners to its streams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from service.operations import commands, stack
from service.streams.hub import Hub
from tests.clients import application
from tests.streams import Listener
from tests.waiting import until


@dataclass(frozen=True)
class Server:
    url: str
    key: str
    port: int
    hub: Hub

    def listen(self, path: str, page: Any = None, **params: Any) -> Listener:
        """Open a stream, or resume a page's."""
        options = {} if page is None else {"page": page}
        return Listener(self.url + path, self.key, params=params, **options)


@contextmanager
def served(key: str) -> Iterator[Server]:
    """A running server; the listeners use this key."""
    with application() as app, stack.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # so that slow clients are noticed soon
        server = commands.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield Server(f"http://127.0.0.1:{port}", key, port, server.lifespan.state["hub"])
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def server(key: str) -> Iterator[Server]:
    with served(key) as server:
        yield server
