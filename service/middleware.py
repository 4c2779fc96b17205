"""ASGI middleware: the size limit of bodies and the request id."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from service.errors import TooLarge
from service.problems import REQUEST_ID, respond


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
