"""Cursors: positions in a stream, which are also the ids of its events.

A cursor with the suffix `.end` is that of the last event: nothing follows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

END = ".end"
MAX_SEQ, MAX_STEP, MAX_NAME = 2**63 - 1, 2**31 - 1, 2**31 - 1
"""Largest values of PostgreSQL's types."""


@dataclass(frozen=True)
class JobCursor:
    """Position in the stream of a job: `SEQ.STEP.NAMES`.

    Points are stored in the order of their steps, but those of one step (training, validation, test) at several times.
    """

    seq: int = 0
    """`seq` of the last event sent."""
    step: int = -1
    """All points of smaller steps have been sent."""
    names: frozenset[int] = frozenset()
    """Ids of the metrics whose points at `step` itself have been sent."""

    def __str__(self) -> str:
        return f"{self.seq}.{self.step}.{'-'.join(map(str, sorted(self.names)))}"

    @classmethod
    def parse(cls, text: str) -> JobCursor | None:
        """The cursor, or None if the text is invalid."""
        match = re.fullmatch(r"(\d{1,19})\.(-1|\d{1,10})\.((?:\d{1,10}(?:-\d{1,10})*)?)", text, re.ASCII)
        if match is None:
            return None
        cursor = cls(int(match[1]), int(match[2]), frozenset(map(int, filter(None, match[3].split("-")))))
        fits = cursor.seq <= MAX_SEQ and cursor.step <= MAX_STEP and all(name <= MAX_NAME for name in cursor.names)
        return cursor if fits else None

    def rewound(self, step: int) -> JobCursor:
        """The cursor after the run has returned to `step`: points from there on are void and will be sent again."""
        return self if self.step < step else replace(self, step=step, names=frozenset())


@dataclass(frozen=True)
class ManyCursor:
    """Position in a stream of several jobs: `XID.COUNT`.

    A global sequence does not follow the order of commits, so that a reader which resumes by it misses late commits.
    Events are therefore sent in order of their transactions, and only when no older transaction is open.
    """

    xid: int
    """All events of older transactions have been sent."""
    count: int = 0
    """Number of events of this transaction that have been sent."""

    def __str__(self) -> str:
        return f"{self.xid}.{self.count}"

    @classmethod
    def parse(cls, text: str) -> ManyCursor | None:
        """The cursor, or None if the text is invalid."""
        match = re.fullmatch(r"(\d{1,19})\.(\d{1,10})", text, re.ASCII)
        if match is None or int(match[1]) > MAX_SEQ:
            return None
        return cls(int(match[1]), int(match[2]))
