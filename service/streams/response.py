"""A stream as an HTTP response, which ends with the last event or when its client disconnects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import Invalid, NotFound
from service.streams.cursor import END
from service.streams.event_feed import progress
from service.streams.feed import Delta, Feed, Steps
from service.streams.hub import AWAY, PULSE_SECONDS, Hub, Listener

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
"""Interval of heartbeats; proxies close connections that are silent for a minute."""
SEND_TIMEOUT_SECONDS = 30.0
"""Time in which a client must accept a piece; it is disconnected otherwise."""
PIECE_BYTES = 65_536
RETRY_MILLISECONDS = 1000

log = logging.getLogger(__name__)


def open_stream(hub: Hub, feed: Feed[Any], key_id: UUID, user_id: UUID, last_event_id: str | None) -> Response:
    """The stream after the last event received, or from its start; 204 if no events follow.

    The stream ends when its API key is deleted. Raises Invalid for an id of another stream.
    """
    cursor = None
    if last_event_id is not None:
        cursor = feed.parse(last_event_id.removesuffix(END))
        if cursor is None:
            raise Invalid.field(
                "Last-Event-ID",
                "not an event id of this stream; send the id of an event you received, or omit the header",
            )
        if last_event_id.endswith(END):
            return Response(status_code=204)  # browsers reconnect after any other end
    return EventStream(hub, feed, (key_id, user_id), cursor)


class EventStream(Response):
    """Server-sent events after a cursor; None: from the start.

    The first read precedes the response, so that a client misses nothing that happens after it has the response. It
    follows the end of the request's own session; otherwise, requests that hold all connections would wait for another.
    """

    media_type = MEDIA_TYPE

    def __init__(self, hub: Hub, feed: Feed[Any], key: tuple[UUID, UUID], cursor: Any) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._hub, self._feed, self._key, self._cursor = hub, feed, key, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the end of the stream, or until the client disconnects."""
        with self._hub.listening(self._feed, *self._key) as listener:
            sending = asyncio.create_task(self._stream(send, listener))
            disconnecting = asyncio.create_task(_disconnected(receive))
            try:
                await asyncio.wait((sending, disconnecting), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                for task in (sending, disconnecting):
                    task.cancel()
                await asyncio.gather(sending, disconnecting, return_exceptions=True)

    async def _stream(self, send: Send, listener: Listener) -> None:
        connection, first = _Connection(send), await self._hub.read(self._feed, self._cursor)
        try:
            await connection.start(self.raw_headers)
            await self._send_all(connection, listener, first)
            await connection.end()
        except TimeoutError:
            # The response stays incomplete, so that the server closes the connection.
            message = "a client of %s accepted nothing for %g s and was disconnected"
            log.warning(message, self._feed, SEND_TIMEOUT_SECONDS)

    async def _send_all(self, connection: _Connection, listener: Listener, delta: Delta[Any]) -> None:
        steps: Steps = {}
        steps_at = 0.0
        while True:
            await connection.send(delta.frames)
            if delta.progress is not steps and time.monotonic() - steps_at >= PULSE_SECONDS:
                await connection.send(progress(steps, delta.progress, delta.cursor))
                steps, steps_at = delta.progress, time.monotonic()
            if delta.is_last:
                return
            if not delta.has_more:
                await self._wait(connection, listener)
            if self._hub.is_closed or listener.is_refused:
                return
            listener.woken.clear()
            try:
                delta = await self._hub.read(self._feed, delta.cursor)
            except NotFound:
                return
            except AWAY:
                delta = Delta((), delta.cursor, progress=steps)
                listener.woken.set()
                await asyncio.sleep(PULSE_SECONDS)

    async def _wait(self, connection: _Connection, listener: Listener) -> None:
        """Wait until the listener is woken; meanwhile, send heartbeats.

        Most wake-ups bring no events, so silence is counted from the last byte sent.
        """
        while True:
            silence = time.monotonic() - connection.sent_at
            if silence >= HEARTBEAT_SECONDS:
                await connection.send([b":\n\n"])
                silence = 0.0
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS - silence):
                    await listener.woken.wait()
            except TimeoutError:
                continue
            return


class _Connection:
    """The connection to the client. Raises TimeoutError if the client accepts nothing."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.sent_at = time.monotonic()

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send([f"retry: {RETRY_MILLISECONDS}\n\n".encode()])

    async def send(self, frames: Iterable[bytes]) -> None:
        for piece in pieces(frames):
            await self._put(piece, more=True)
            self.sent_at = time.monotonic()

    async def end(self) -> None:
        await self._put(b"", more=False)

    async def _put(self, piece: bytes, *, more: bool) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})


def pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames in pieces of `PIECE_BYTES`. Streams share frames; each copies one piece at a time."""
    piece = b""
    for frame in frames:
        start = 0
        while start < len(frame):
            stop = start + PIECE_BYTES - len(piece)
            piece += frame[start:stop]
            start = stop
            if len(piece) == PIECE_BYTES:
                yield piece
                piece = b""
    if piece:
        yield piece


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
