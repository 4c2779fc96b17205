"""ASGI middleware: request ids, keys before bodies, limits of bodies, responses in pieces, concurrent requests."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from service.errors import FieldError, KotrainError, Malformed, TooLarge
from service.specs import json_text
from service.web.budgets import Turns, client_address, is_static
from service.web.problem_details import REQUEST_ID, respond

PIECE_BYTES = 65_536
MAX_VALUES = 20_000
"""Values in a JSON body. Each may give an error, of which half a million would stop the event loop for 10 s."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


class _SendWrapper(ABC):
    """Base of middleware that changes what the application sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self.app(scope, receive, self.wrapped(scope, send) if scope["type"] == "http" else send)

    @abstractmethod
    def wrapped(self, scope: Scope, send: Send) -> Send:
        """`send` for the application."""


class RequestId(_SendWrapper):
    """Adds `X-Request-ID` to every response, the id that the client sent or a new one, and `nosniff`."""

    def wrapped(self, scope: Scope, send: Send) -> Send:
        """See `_SendWrapper`."""
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent if re.fullmatch(r"[\w.:/+=-]{1,128}", sent, re.ASCII) else str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        return send_with_id


class _Enough(Exception):
    """Ends the application after the first part of a body that HEAD does not send."""


class HeadAsGet:
    """Answers HEAD like GET, without the body, of which no more than the first part is made.

    So a stream need not end, and a checkpoint is not read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as GET, and drop the body of its response."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _Enough

        with suppress(_Enough):
            await self.app({**scope, "method": "GET"}, receive, send_without_body)


class RequestTurns:
    """Turns of requests that need a thread or a connection to the database.

    Users take turns, and none has more than three quarters of them. Without a limit, requests could deadlock: one holds
    a connection and waits for a thread, another holds a thread and waits for a connection.

    Args:
        total: turns at a time, below the number of threads (40) and of connections (48).
        user_of: returns the user of an `Authorization` value that was valid before; other clients are identified by
            address.
    """

    def __init__(self, total: int, user_of: Callable[[str | None], Hashable | None]) -> None:
        self._turns = Turns(total, total * 3 // 4)
        self._user_of = user_of

    async def take(self, scope: Scope) -> Callable[[], None]:
        """Wait for a turn. Returns a function that ends it; further calls have no effect."""
        who = self._user_of(Headers(scope=scope).get("Authorization")) or client_address(scope)
        await self._turns.take(who)
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._turns.release(who)

        return release

    @asynccontextmanager
    async def held(self, scope: Scope) -> AsyncIterator[None]:
        """A turn during the block."""
        release = await self.take(scope)
        try:
            yield
        finally:
            release()


class OneLength:
    """Rejects requests that state the length of their body twice, in `Content-Length` and by `Transfer-Encoding`.

    A proxy in front may go by the other one, and take a part of the body for the next request (RFC 9112, section 6.1).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400 and close the connection."""
        if scope["type"] == "http" and {"content-length", "transfer-encoding"} <= set(Headers(scope=scope).keys()):
            response = respond(Request(scope), Malformed("give either Content-Length or Transfer-Encoding"))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _has_body(scope: Scope) -> bool:
    """Whether a route may read the body; those of other requests are discarded unread."""
    return bool(scope["type"] == "http" and scope["method"] in ("POST", "PATCH") and scope["path"].startswith("/v1/"))


class KeyFirst:
    """Checks the API key of a request with a body before anything of the body is read or parsed.

    Args:
        app: the application.
        find_key: raises a `KotrainError` if the value of `Authorization` has no key.
        authenticate: raises a `KotrainError` for a wrong key; called in a thread.
        turns: one is held during the check.
        streaming: routes that read their body themselves, after they have checked the key.
    """

    def __init__(
        self,
        app: ASGIApp,
        find_key: Callable[[str | None], object],
        authenticate: Callable[[str | None], object],
        turns: RequestTurns,
        streaming: frozenset[str],
    ) -> None:
        self.app = app
        self.streaming = streaming
        self.find_key = find_key
        self.authenticate = authenticate
        self.turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if _has_body(scope) and f"{scope['method']} {scope['path']}" not in self.streaming:
            request = Request(scope)
            authorization = request.headers.get("Authorization")
            try:
                self.find_key(authorization)
                async with self.turns.held(scope):
                    await run_in_threadpool(self.authenticate, authorization)
            except KotrainError as error:
                await respond(request, error)(scope, receive, send)
                return
            except (SQLAlchemyError, psycopg.Error):  # the route meets it, too, and answers 503
                pass
        await self.app(scope, receive, send)


class BodyLimit:
    """Rejects bodies larger than `max_bytes` before they are read into memory, with or without a `Content-Length`.

    Bodies with more than `MAX_VALUES` values, by their commas, are rejected before they are parsed, and those with half
    of a character, which neither a response nor the database can hold, or with a key twice in an object.

    The routes in `streaming`, each as "METHOD /path", read their bodies in chunks and check the size themselves.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, streaming: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.streaming = streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit, then pass it on."""
        if not _has_body(scope) or f"{scope['method']} {scope['path']}" in self.streaming:
            await self.app(scope, receive, send)
            return
        messages: list[Message] = []
        size = 0
        declared = Headers(scope=scope).get("content-length", "0")
        too_large = declared.isdigit() and int(declared) > self.max_bytes
        while not too_large:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            too_large = size > self.max_bytes
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        error: KotrainError | None = None
        if too_large:
            error = TooLarge(f"the body is larger than {self.max_bytes:,} bytes")
        else:
            error = _unfit(b"".join(message.get("body", b"") for message in messages))
        if error is not None:
            await respond(Request(scope), error)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, replay, send)


def _unfit(body: bytes) -> KotrainError | None:
    """Why a body is rejected before it is validated."""
    if body.count(b",") >= MAX_VALUES:
        return TooLarge(f"the body has more than {MAX_VALUES:,} values")
    if body and json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
        return Malformed("the body is not UTF-8")
    try:
        parsed = json_text.loads(body)
        if _SURROGATE.search(body):
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Malformed("the body has an unpaired surrogate such as \\ud800, which is half of a character")
    except json_text.RepeatedKey as repeated:
        return Malformed(str(repeated), (FieldError(repeated.pointer, "this field is given twice"),))
    except (ValueError, RecursionError):  # the route says so
        pass
    return None


class Pieces(_SendWrapper):
    """Sends bodies in pieces, each of which waits until the client has read enough of the earlier ones.

    A body that is sent at once is copied into the connection's buffer, where it stays while the client reads nothing.
    """

    def wrapped(self, scope: Scope, send: Send) -> Send:
        """See `_SendWrapper`."""

        async def send_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            view = memoryview(body)
            for start in range(0, len(body), PIECE_BYTES):
                more = start + PIECE_BYTES < len(body) or message.get("more_body", False)
                await send({**message, "body": bytes(view[start : start + PIECE_BYTES]), "more_body": more})

        return send_pieces


class ConcurrencyLimit:
    """Limits the number of concurrent requests; others wait for a turn, which ends when the response starts.

    An endpoint that no longer needs a thread or a connection ends its turn with `request.state.release_turn()`.

    Args:
        app: the application behind the limit.
        turns: shared with what else needs threads or connections.
        exempt: routes that need neither, each as "METHOD /path"; pages and files need none either.
    """

    def __init__(self, app: ASGIApp, turns: RequestTurns, exempt: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.turns = turns
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for a turn, then pass the request on."""
        if scope["type"] != "http" or is_static(scope) or f"{scope['method']} {scope['path']}" in self.exempt:
            await self.app(scope, receive, send)
            return
        release = await self.turns.take(scope)

        async def release_and_send(message: Message) -> None:
            release()
            await send(message)

        scope.setdefault("state", {})["release_turn"] = release
        try:
            await self.app(scope, receive, release_and_send)
        finally:
            release()
