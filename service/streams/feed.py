"""The interface of feeds, which read the events after a cursor, and the format of events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

Cursor = TypeVar("Cursor")
Steps = Mapping[UUID, tuple[int, int | None]]
"""Step and total number of steps (None: unknown) of each running job."""


@dataclass(frozen=True)
class Delta(Generic[Cursor]):
    """The next events of a stream, and the cursor after them."""

    frames: Sequence[bytes]
    cursor: Cursor
    is_last: bool = False
    """No events will follow."""
    has_more: bool = False
    """More events are available; they did not fit."""
    progress: Steps = field(default_factory=dict)
    """All running jobs, in a stream of several jobs."""


class Feed(Protocol[Cursor]):
    """The content of a stream. Equal feeds share their reads."""

    def parse(self, text: str) -> Cursor | None:
        """The cursor of an event id; None if the id is invalid."""

    def watched(self) -> UUID | None:
        """The job whose changes wake the stream; None: any change does."""

    def read(self, session: Session, cursor: Cursor | None, until: int | None) -> Delta[Cursor]:
        """The events after the cursor, from a single snapshot.

        Args:
            session: a transaction with one snapshot for all its statements.
            cursor: position of the stream; None: its start.
            until: transaction up to which streams of several jobs read, so that they reach the same cursor and share
                their reads; None: the oldest open one.
        """


def frame(event: str, id_: object, data: Mapping[str, Any]) -> bytes:
    """An event in the format of server-sent events."""
    body = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f"event: {event}\nid: {id_}\ndata: {body}\n\n".encode()


def instant(at: datetime) -> str:
    """A time as in the rest of the API: RFC 3339 with `Z`."""
    return at.isoformat().replace("+00:00", "Z")
