"""How far a stream has told; written out, a cursor is the id of an event.

A cursor that is followed by `.end` says that all was told: there is nothing to resume.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

END = ".end"
MOST_SEQ, MOST_STEP, MOST_NAME = 2**63 - 1, 2**31 - 1, 2**31 - 1
"""What Postgres can hold."""


@dataclass(frozen=True)
class JobCursor:
    """How far a stream of one job is: `SEQ.STEP.NAMES`.

    Points are stored in the order of their steps, but those of one step (training, validation, test) not all at once.
    """

    seq: int = 0
    """Of the last event told."""
    step: int = -1
    """All points of smaller steps have been told."""
    names: frozenset[int] = frozenset()
    """Ids of the metrics whose points of `step` itself have been told."""

    def __str__(self) -> str:
        return f"{self.seq}.{self.step}.{'-'.join(map(str, sorted(self.names)))}"

    @classmethod
    def parse(cls, written: str) -> JobCursor | None:
        """The cursor, or None where it is none."""
        found = re.fullmatch(r"(\d{1,19})\.(-1|\d{1,10})\.((?:\d{1,10}(?:-\d{1,10})*)?)", written, re.ASCII)
        if found is None:
            return None
        cursor = cls(int(found[1]), int(found[2]), frozenset(map(int, filter(None, found[3].split("-")))))
        fits = cursor.seq <= MOST_SEQ and cursor.step <= MOST_STEP and all(name <= MOST_NAME for name in cursor.names)
        return cursor if fits else None

    def rewound(self, step: int) -> JobCursor:
        """After the run has gone back: the points of `step` and beyond are void and come again."""
        return self if self.step < step else replace(self, step=step, names=frozenset())


@dataclass(frozen=True)
class ManyCursor:
    """How far a stream of many jobs is: `XID.K`.

    A global sequence is not the order of commits, and a reader that resumes by one loses what commits late. So events
    are told by their transaction, and only once no older transaction is open.
    """

    xid: int
    """All events of older transactions have been told."""
    told: int = 0
    """How many of this transaction have."""

    def __str__(self) -> str:
        return f"{self.xid}.{self.told}"

    @classmethod
    def parse(cls, written: str) -> ManyCursor | None:
        """The cursor, or None where it is none."""
        found = re.fullmatch(r"(\d{1,19})\.(\d{1,10})", written, re.ASCII)
        if found is None or int(found[1]) > MOST_SEQ:
            return None
        return cls(int(found[1]), int(found[2]))
