"""ASGI middleware: the request id, the size limit of bodies, and how many requests are worked on at once."""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from service.errors import TooLarge
from service.web.problem_details import REQUEST_ID, respond


class RequestId:
    """Every answer carries `X-Request-ID`: the caller's own, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header to whatever is sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if re.fullmatch(r"[\w.:/+=-]{1,128}", given, re.ASCII) else str(uuid7())

        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class BodyLimit:
    """Refuse a body beyond `max_bytes` before it is read into memory, whether or not its length was announced.

    The routes in `streaming`, each as "METHOD /path", read their body piece by piece and count it themselves.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, streaming: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.streaming = streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit, then hand it on."""
        if scope["type"] != "http" or f"{scope['method']} {scope['path']}" in self.streaming:
            await self.app(scope, receive, send)
            return
        messages: list[Message] = []
        size = 0
        announced = Headers(scope=scope).get("content-length", "0")
        too_large = announced.isdigit() and int(announced) > self.max_bytes
        while not too_large:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            too_large = size > self.max_bytes
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        if too_large:
            error = TooLarge(f"the body is larger than {self.max_bytes:,} bytes")
            response = respond(Request(scope), error)
            await response(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, replay, send)


class Turns:
    """Work on at most `most` requests at once; the others wait their turn, which ends where an answer starts.

    An endpoint that goes on without a thread and a connection of its own ends its turn by `request.state.end_turn()`.

    A request has a database connection while it waits for one of the threads, and a thread while it waits for a
    connection: with more requests than there are of either, those with one would wait for those with the other.

    Args:
        most: fewer than threads (40) and connections (48).
        free: requests that wait for neither, each as "METHOD /path".
    """

    def __init__(self, app: ASGIApp, most: int, free: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.free = free
        self._turns = asyncio.Semaphore(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, then hand the request on."""
        if scope["type"] != "http" or f"{scope['method']} {scope['path']}" in self.free:
            await self.app(scope, receive, send)
            return
        await self._turns.acquire()
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._turns.release()

        async def send_and_end(message: Message) -> None:
            end()
            await send(message)

        scope.setdefault("state", {})["end_turn"] = end
        try:
            await self.app(scope, receive, send_and_end)
        finally:
            end()
