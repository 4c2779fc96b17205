"""Requests that may be repeated: the stored answer of the first one is the answer of all.

The answer is stored in the transaction of what the request makes, under an advisory lock: a plain unique insert would
make the second request wait for the first instead of telling it so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.errors import Conflict, Invalid
from service.storage.tables import IdempotencyKey, User

KEPT = timedelta(hours=24)
HEADER = "Idempotency-Key"


def once(
    session: Session, user: User, route: str, key: str | None, body: str, make: Callable[[], tuple[UUID, str]]
) -> tuple[UUID, str]:
    """The id and the answer of what `make` makes, or those that it made when the request came first.

    Raises `Conflict` while another request with the key is under way, `Invalid` where the key came with another body.
    """
    if key is None:
        return make()
    digest = hashlib.sha256(body.encode()).hexdigest()
    stored = _replay(session, user, route, key, digest)
    if stored is not None:
        return stored.resource_id, stored.answer
    made, answer = make()
    _store(session, user, route, key, digest, made, answer)
    return made, answer


def _replay(session: Session, user: User, route: str, key: str, body_digest: str) -> IdempotencyKey | None:
    """The stored answer, or None for a new key, which this transaction then owns."""
    name = f"kotrain.idempotency:{user.id}:{route}:{key}"
    if not session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))):
        raise Conflict(f"a request with this {HEADER} is still being processed; try again in a few seconds")
    stored = session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.user_id == user.id,
            IdempotencyKey.route == route,
            IdempotencyKey.key == key,
            IdempotencyKey.created_at > func.clock_timestamp() - KEPT,
        )
    )
    if stored is None:
        return None
    if stored.body_digest != body_digest:
        raise Invalid.field(HEADER, "this key was used with a different body; use a new key for a new request")
    return stored


def _store(
    session: Session, user: User, route: str, key: str, body_digest: str, resource_id: UUID, answer: str
) -> None:
    """Keep the answer for a day; an expired one with the same key makes room."""
    session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.user_id == user.id, IdempotencyKey.route == route, IdempotencyKey.key == key
        )
    )
    session.add(
        IdempotencyKey(
            user_id=user.id, route=route, key=key, body_digest=body_digest, resource_id=resource_id, answer=answer
        )
    )
