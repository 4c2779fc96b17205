"""Reads the messages of a child without blocking, within limits that no child of kotrain's own code reaches."""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from multiprocessing.connection import Connection

from service.specs.quantities import size
from workers import messages
from workers.messages import InvalidMessage

MAX_FRAME_BYTES = 8 * 2**20
MESSAGES_AT_ONCE = 100
"""Messages returned by one call, so that a child that writes without pause does not keep its supervisor busy."""
MAX_METRICS = 10_000
"""Names of metrics of a run; each takes a row that stays."""
MAX_POINTS = 1_000_000
"""Points of a metric. `workers.thinning` leaves fewer than 200,000 of 2^31 steps, and some more where other metrics, of
which an own interval is set, end its windows early."""
MAX_NOTES = 200
PARTIAL_MESSAGE_SECONDS = 30
"""A child that does not complete a message within this time is killed."""
_READ_BYTES = 2**18
_HEADER = struct.Struct("!i")
"""Length of a frame, as `multiprocessing.Connection.send_bytes` writes it; -1 announces a longer one than 2 GiB."""


class Stalled(Exception):
    """A child has not completed a message in time."""


class Inbox:
    """The messages of one child."""

    def __init__(self, pipe: Connection) -> None:
        self._descriptor = pipe.fileno()
        os.set_blocking(self._descriptor, False)
        self._buffer = bytearray()
        self._partial_since: float | None = None
        self._is_ready = self._has_started = False
        self._notes = 0
        self._invalid: InvalidMessage | None = None
        self._last_steps: dict[str, int] = {}
        self._points: Counter[str] = Counter()

    def receive(self) -> list[messages.Received]:
        """The messages that have arrived, at most `MESSAGES_AT_ONCE`; none at the end of the stream.

        Raises:
            InvalidMessage: a message is too long, violates the schema or comes at the wrong time.
            Stalled: a message has been incomplete for too long.
            OSError: the connection is broken.
        """
        if self._invalid is not None:  # the messages before it have been returned
            raise self._invalid
        received = self._frames()
        while len(received) < MESSAGES_AT_ONCE and self._invalid is None and self._read():
            received += self._frames()
        if self._invalid is not None and not received:
            raise self._invalid
        now = time.monotonic()
        self._partial_since = (self._partial_since or now) if self._buffer and not received else None
        if self._partial_since is not None and now - self._partial_since > PARTIAL_MESSAGE_SECONDS:
            raise Stalled
        return received

    def _read(self) -> bool:
        """Append what has arrived to the buffer; False if nothing has."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        self._buffer += data
        return bool(data)

    def _frames(self) -> list[messages.Received]:
        """Remove complete frames from the buffer, at most `MESSAGES_AT_ONCE`, and return their messages."""
        received: list[messages.Received] = []
        start = 0
        try:
            while len(received) < MESSAGES_AT_ONCE and (end := self._frame_end(start)) is not None:
                message = messages.decode(bytes(self._buffer[start + _HEADER.size : end]))
                self._check(message)
                received.append(message)
                start = end
        except InvalidMessage as error:
            self._invalid = error
        del self._buffer[:start]
        return received

    def _frame_end(self, start: int) -> int | None:
        """The end of the frame that starts here; None if it has not arrived completely."""
        if len(self._buffer) - start < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer, start)
        if not 0 <= length <= MAX_FRAME_BYTES:
            raise InvalidMessage(f"it is too long (at most {size(MAX_FRAME_BYTES)})")
        end: int = start + _HEADER.size + length
        return end if end <= len(self._buffer) else None

    def _check(self, message: messages.Received) -> None:
        """Raise InvalidMessage for a message at the wrong time, or beyond the limits of a run."""
        match message:
            case messages.Ready():
                self._is_ready = True
            case messages.NoEngine() | messages.Machine() | messages.EngineMemory() if self._is_ready:
                raise InvalidMessage(f"{type(message).__name__} after Ready")
            case messages.Started() | messages.Unable() if self._has_started:
                raise InvalidMessage(f"{type(message).__name__} after Started")
            case messages.Started(environment=environment):
                if not isinstance(environment.get("engine_version", 0), int):
                    raise InvalidMessage("the version of the engine is not a number")
                self._has_started = True
            case messages.Note():
                self._notes += 1
                if self._notes > MAX_NOTES:
                    raise InvalidMessage(f"more than {MAX_NOTES} notes")
            case messages.Points(points=points):
                for name, columns in points.items():
                    self._check_points(name, *columns)

    def _check_points(self, name: str, steps: list[int], values: list[float], wall_seconds: list[float]) -> None:
        if not len(steps) == len(values) == len(wall_seconds) > 0:
            raise InvalidMessage(f"empty columns, or columns of different lengths, for metric {name!r}")
        last = self._last_steps.get(name, -1)
        for step in steps:
            if step <= last:
                raise InvalidMessage(f"step {step} after step {last} for metric {name!r}")
            last = step
        self._last_steps[name] = last
        self._points[name] += len(steps)
        if self._points[name] > MAX_POINTS:
            raise InvalidMessage(f"more than {MAX_POINTS:,} points of metric {name!r}")
        if len(self._last_steps) > MAX_METRICS:
            raise InvalidMessage(f"more than {MAX_METRICS:,} metrics")
