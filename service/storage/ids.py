"""Ids as people give them: whole, or as a part that only one id begins or ends with."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Text, cast, func, or_, select
from sqlalchemy.orm import Session

from service.errors import FieldError, Invalid, NotFound
from service.storage.tables import Comparison, Job

DIGITS = 32
MAX_LISTED = 5
"""Matches of an ambiguous part that its error lists."""


def resolve(session: Session, table: type[Job | Comparison], part: str, pointer: str | None = None) -> UUID:
    """The id that begins or ends with `part`; hyphens and case do not matter.

    A whole id is returned unchanged, whether it exists or not, and without a query.

    Raises:
        NotFound: no id has this part. If the field `pointer` of a body holds the part, Invalid instead.
        Invalid: several ids have it; the newest are listed.
    """
    digits = part.replace("-", "").lower()
    if len(digits) == DIGITS:
        return UUID(digits)
    noun = table.__tablename__.removesuffix("s")
    text = func.replace(cast(table.id, Text), "-", "")
    # Ends are found by a scan of the table, which the range makes no shorter.
    begins = table.id.between(UUID(digits.ljust(DIGITS, "0")), UUID(digits.ljust(DIGITS, "f")))
    matches = select(table.id, table.status).where(or_(begins, text.endswith(digits))).order_by(table.id.desc())
    rows = session.execute(matches.limit(MAX_LISTED + 1)).all()
    if len(rows) == 1:
        found: UUID = rows[0].id
        return found
    if not rows:
        detail = f"no {noun} has an id that begins or ends with '{part}'"
        raise Invalid.field(pointer, detail) if pointer else NotFound(detail)
    listed = ", ".join(f"{row.id} ({row.status})" for row in rows[:MAX_LISTED])
    more = ", and more" if len(rows) > MAX_LISTED else ""
    detail = f"several {noun}s have an id that begins or ends with '{part}': {listed}{more}; give more of the id"
    raise Invalid(detail, (FieldError(pointer, detail),) if pointer else ())
