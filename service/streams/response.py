"""One stream over HTTP: the answer that tells what comes, until all is told or its listener is gone."""

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
"""Without a word; proxies close what is silent for a minute."""
TAKE_SECONDS = 30.0
"""In which a listener has to take a piece, or else is cut off."""
PIECE_BYTES = 65_536
RETRY_MILLISECONDS = 1000

log = logging.getLogger(__name__)


def open_stream(hub: Hub, feed: Feed[Any], key_id: UUID, last_event_id: str | None) -> Response:
    """The stream from behind the event that was told last, or from its beginning; 204 where all was told.

    It ends where the key that it was asked for with is taken back.
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
            return Response(status_code=204)  # browsers come again after any other end
    return EventStream(hub, feed, key_id, cursor)


class EventStream(Response):
    """Server-Sent Events from a cursor on; None: from the beginning.

    The first read comes before the answer, so that whoever has the answer misses nothing that happens from then on; and
    after the request's own session has ended, or else as many requests as there are connections would wait for one.
    """

    media_type = MEDIA_TYPE

    def __init__(self, hub: Hub, feed: Feed[Any], key_id: UUID, cursor: Any) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._hub, self._feed, self._key_id, self._cursor = hub, feed, key_id, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the end, or until the listener is gone."""
        with self._hub.listening(self._feed, self._key_id) as listener:
            telling = asyncio.create_task(self._tell(send, listener))
            leaving = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                for task in (telling, leaving):
                    task.cancel()
                await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, send: Send, listener: Listener) -> None:
        wire, first = _Wire(send), await self._hub.read(self._feed, self._cursor)
        try:
            await wire.start(self.raw_headers)
            await self._tell_all(wire, listener, first)
            await wire.end()
        except TimeoutError:
            # The answer stays without its end, so that the server closes the connection.
            log.warning("a listener of %s took nothing for %g s and was cut off", self._feed, TAKE_SECONDS)

    async def _tell_all(self, wire: _Wire, listener: Listener, delta: Delta[Any]) -> None:
        steps: Steps = {}
        steps_at = 0.0
        while True:
            await wire.tell(delta.frames)
            if delta.progress is not steps and time.monotonic() - steps_at >= PULSE_SECONDS:
                await wire.tell(progress(steps, delta.progress, delta.cursor))
                steps, steps_at = delta.progress, time.monotonic()
            if delta.is_last:
                return
            if not delta.has_more:
                await self._wait(wire, listener)
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

    async def _wait(self, wire: _Wire, listener: Listener) -> None:
        """Until something has happened; the listener hears that we are still there.

        Most wakings bring nothing to tell, so that silence is counted from the last byte on.
        """
        while True:
            silence = time.monotonic() - wire.told_at
            if silence >= HEARTBEAT_SECONDS:
                await wire.tell([b":\n\n"])
                silence = 0.0
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS - silence):
                    await listener.woken.wait()
            except TimeoutError:
                continue
            return


class _Wire:
    """The way to the listener. Raises `TimeoutError` where it takes nothing."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.told_at = time.monotonic()

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.tell([f"retry: {RETRY_MILLISECONDS}\n\n".encode()])

    async def tell(self, frames: Iterable[bytes]) -> None:
        for piece in pieces(frames):
            await self._put(piece, more=True)
            self.told_at = time.monotonic()

    async def end(self) -> None:
        await self._put(b"", more=False)

    async def _put(self, piece: bytes, *, more: bool) -> None:
        async with asyncio.timeout(TAKE_SECONDS):
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})


def pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames in pieces of `PIECE_BYTES`: all listeners share the frames, each has a copy of one piece at a time."""
    piece = b""
    for said in frames:
        start = 0
        while start < len(said):
            stop = start + PIECE_BYTES - len(piece)
            piece += said[start:stop]
            start = stop
            if len(piece) == PIECE_BYTES:
                yield piece
                piece = b""
    if piece:
        yield piece


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
