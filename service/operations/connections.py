"""Connections of the API: how many there may be, and how long a client may take to send a request or read a response.

Clients whose budget of refusals is used up are refused here, before their request is parsed.

uvicorn has no such limits: sockets that send nothing, half a request or read nothing would stay open for good, until
the process has no descriptors left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import h11
from uuid_utils.compat import uuid7
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import KotrainError, TooManyConnections
from service.specs.text import counted

log = logging.getLogger(__name__)

_UPLOAD = re.compile(rb"POST [^ ?]*/v1/datasets[ ?]")
_TO_API = re.compile(rb"[A-Z]+ [^ ?]*/v1/")
_AUTHORIZATION = re.compile(rb"\r\nauthorization:[ \t]*([^\r\n]*)", re.IGNORECASE)

RESERVED_DESCRIPTORS = 256
"""For the database, the broker, files and the log."""
MAX_DESCRIPTORS = 65_536
"""More would only make loops over all descriptors slow."""
ACCEPTED_AT_ONCE = 16
"""Connections accepted per turn of the event loop, so that a burst of 1,000 does not delay requests in progress."""
LINGER_SECONDS = 1.0
"""Time in which a refused client can read the response, before the socket is closed."""
MAX_LINGERING, MAX_LINGERING_PER_ADDRESS = 256, 64
LOG_SECONDS = 60.0
"""Interval at which failed accepts and refusals are logged."""


@dataclass(frozen=True)
class Limits:
    """Limits on connections. Times are in seconds."""

    connections: int
    """In all."""
    per_address: int
    request_seconds: float = 20.0
    """For headers and body of a request; for a streamed body, between two pieces."""
    read_seconds: float = 60.0
    """For which a client may read nothing while data is ready for it."""
    streaming: frozenset[str] = frozenset()
    """Routes with streamed bodies, each as "METHOD /path"."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return min(soft, MAX_DESCRIPTORS) if soft != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "pool": _Pool(limits)})


class Refusal(Protocol):
    """Why a request to the API is refused now, by address and value of `Authorization`."""

    def __call__(self, address: str, authorization: str | None, *, is_upload: bool) -> KotrainError | None:
        """None if it is not."""


class _Pool:
    """The connections of a server, and which of them wait for their client."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_address: Counter[str] = Counter()
        self._waiting: dict[_LimitedProtocol, None] = {}  # in the order in which they began to wait
        self._lingering: Counter[str] = Counter()
        self.refused = _RefusalLog()

    def admit(self, connection: _LimitedProtocol) -> bool:
        """Add a connection. At a limit, one that has waited longest for its client gives way; False if none waits."""
        self._by_address[connection.address] += 1
        if self._by_address[connection.address] > self._limits.per_address:
            return self._evict(connection.address)
        return self._by_address.total() <= self._limits.connections or self._evict(None)

    def _evict(self, address: str | None) -> bool:
        """Close the connection that has waited longest, of this address or of any."""
        for connection in self._waiting:
            if address is None or connection.address == address:
                connection.abort()
                return True
        return False

    def wait(self, connection: _LimitedProtocol, *, anew: bool = False) -> None:
        """A connection waits for its client, to send or to read; `anew`: the client has just done so."""
        if anew:
            self._waiting.pop(connection, None)
        self._waiting.setdefault(connection)

    def work(self, connection: _LimitedProtocol) -> None:
        """A connection has a complete request."""
        self._waiting.pop(connection, None)

    def linger(self, address: str) -> bool:
        """Count a refused connection that stays open, if there are few; false otherwise."""
        if self._lingering[address] >= MAX_LINGERING_PER_ADDRESS or self._lingering.total() >= MAX_LINGERING:
            return False
        self._lingering[address] += 1
        return True

    def end_lingering(self, address: str) -> None:
        """A refused connection is closed."""
        self._lingering[address] -= 1
        if not self._lingering[address]:
            del self._lingering[address]

    def remove(self, connection: _LimitedProtocol) -> None:
        """A connection is closed."""
        self._waiting.pop(connection, None)
        self._by_address[connection.address] -= 1
        if not self._by_address[connection.address]:
            del self._by_address[connection.address]


class _LimitedProtocol(H11Protocol):
    """A connection that is closed if its client neither sends nor reads."""

    limits: ClassVar[Limits]
    pool: ClassVar[_Pool]

    address = ""
    _is_admitted = False
    _is_closed = False
    _lingering: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._request = _Timer(self.loop, self.limits.request_seconds, self._expire)
        self._reading = _Timer(self.loop, self.limits.read_seconds, self._expire_reading)

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, or answer 503 and close it."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._is_admitted = self.pool.admit(self)
        if self._is_admitted:
            self.pool.wait(self)
            self._request.start()
        else:
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if not self._is_closed:
            self._is_closed = True
            self.pool.remove(self)
        self._stop_timers()
        self._end_lingering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on, and note whether the request is complete now."""
        if not self._is_admitted:
            return
        if (error := self._refusal(data)) is not None:
            self._is_admitted = False
            self._refuse(error)
            return
        super().data_received(data)
        if not self.transport.get_write_buffer_size():
            self._reading.stop()
        self._follow()

    def pause_writing(self) -> None:
        """The client does not read as fast as the response is made."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._reading.stop()
        self._follow()

    # --- called by uvicorn ---

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow()
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    # --- ours ---

    def abort(self) -> None:
        """Close the connection at once."""
        if not self._is_closed:
            self._is_closed = True
            self.pool.remove(self)
        self._stop_timers()
        self.transport.abort()

    def _follow(self) -> None:
        """Set the timer and the state of the connection by what the client has sent."""
        state = self.conn.their_state
        if self._is_closed:
            return
        is_answered = self.cycle is not None and self.cycle.response_complete
        if state is h11.SEND_BODY:
            is_moving = not is_answered and f"{self.scope['method']} {self.scope['path']}" in self.limits.streaming
            self.pool.wait(self, anew=is_moving)
            if is_moving:
                self._request.stop()
            self._request.start()
        elif state is h11.IDLE:
            self.pool.wait(self)
            has_begun = bool(self.conn.trailing_data[0])
            if is_answered and not has_begun and self.timeout_keep_alive_task is not None:  # uvicorn closes it if idle
                self._request.stop()
            else:
                self._request.start()
        else:
            self.pool.work(self)
            self._request.stop()

    def _expire(self) -> None:
        if self.flow.read_paused:  # the client waits for us
            self._request.start()
        else:
            self.abort()

    def _expect_reading(self) -> None:
        """The client has to read; a connection that waits for it gives way at a limit."""
        self.pool.wait(self)
        self._reading.start()

    def _expire_reading(self) -> None:
        if self.transport.get_write_buffer_size():
            self.abort()

    def _refusal(self, data: bytes) -> KotrainError | None:
        """Why a request that begins with this data is refused.

        Only if the data has all headers. Otherwise the application refuses it, which takes ten times the CPU time. It
        also does so behind a proxy, because only the application knows the client's address.
        """
        is_next = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        end = data.find(b"\r\n\r\n")
        if not is_next or end < 0 or not _TO_API.match(data) or self.config.proxy_headers:
            return None
        refusal: Refusal | None = self.app_state.get("refusal")
        if refusal is None:
            return None
        keys = _AUTHORIZATION.findall(data[:end])
        authorization = keys[0].decode("latin-1").strip() if keys else None
        return refusal(self.address, authorization, is_upload=bool(_UPLOAD.match(data)))

    def _refuse(self, error: KotrainError) -> None:
        """Answer with the error, and close the socket once the client had time to read it."""
        self._stop_timers()
        self._unset_keepalive_if_required()
        self.pool.wait(self)
        self.pool.refused.count(error)
        self.transport.write(_response(error))
        if self.pool.linger(self.address):
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.abort)
        else:
            self.transport.close()

    def _end_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            self.pool.end_lingering(self.address)

    def _stop_timers(self) -> None:
        self._request.stop()
        self._reading.stop()


class _Timer:
    """A call after some seconds, unless it is stopped before. To start it while it runs changes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]) -> None:
        self._loop, self._seconds, self._call = loop, seconds, call
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._end)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _end(self) -> None:
        self._handle = None
        self._call()


def without_query(record: logging.LogRecord) -> bool:
    """Filter of the access log: queries may hold what users search for."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def _response(error: KotrainError) -> bytes:
    """The error as an HTTP response that closes the connection."""
    body = json.dumps(
        {
            "type": f"https://kotrain.invalid/problems/{error.slug}",
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "errors": [],
        }
    ).encode()
    lines = [
        f"HTTP/1.1 {error.status.value} {error.status.phrase}",
        "Content-Type: application/problem+json",
        *(f"{name}: {value}" for name, value in error.headers.items()),
        f"X-Request-ID: {uuid7()}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _RefusalLog:
    """Logs how many requests were refused at their connection and why, once per interval."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")
        self._refused: Counter[str] = Counter()

    def count(self, error: KotrainError) -> None:
        """Count a refusal."""
        self._refused[error.detail.partition(";")[0]] += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            reasons = (f"{counted(count, 'request')} ({reason})" for reason, count in self._refused.most_common())
            log.warning("refused at the connection: %s", ", ".join(reasons))
            self._logged_at = now
            self._refused.clear()


class AcceptErrors:
    """Handler of errors in the event loop that logs failed accepts once per interval.

    asyncio reports each of them with a traceback, up to 2,048 a second while no descriptor is free.
    """

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the error."""
        if "accept" not in str(context.get("message", "")):
            loop.default_exception_handler(context)
        elif loop.time() - self._logged_at >= LOG_SECONDS:
            self._logged_at = loop.time()
            log.error("cannot accept connections: %s", context.get("exception"))
