"""What came after a cursor, as it goes over the wire."""

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
"""Running job -> its step and how many there will be, null where that is not known."""


@dataclass(frozen=True)
class Delta(Generic[Cursor]):
    """What a stream tells next, and how far it is then."""

    frames: Sequence[bytes]
    cursor: Cursor
    is_last: bool = False
    """Nothing can follow."""
    has_more: bool = False
    """There is more already, which was too much at once."""
    progress: Steps = field(default_factory=dict)
    """Of a stream of many jobs: all that run."""


class Feed(Protocol[Cursor]):
    """What a stream is about; equal feeds share what they read."""

    def parse(self, written: str) -> Cursor | None:
        """The cursor that was written as an id; None where it is none."""

    def watched(self) -> UUID | None:
        """The one job whose changes wake the stream; None: any change does."""

    def read(self, session: Session, cursor: Cursor | None, until: int | None) -> Delta[Cursor]:
        """What came after the cursor, in one snapshot; None: the stream begins.

        Args:
            session: a transaction with one snapshot for all its statements.
            cursor: how far the stream is.
            until: the transaction that streams of many jobs read up to, so that they come to one cursor and then share
                what they read; None: the oldest that is open.
        """


def frame(event: str, id_: object, data: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    body = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f"event: {event}\nid: {id_}\ndata: {body}\n\n".encode()


def instant(at: datetime) -> str:
    """A time as everywhere else in the API: RFC 3339 with Z."""
    return at.isoformat().replace("+00:00", "Z")
