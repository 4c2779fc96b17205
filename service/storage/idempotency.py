"""Idempotency keys: a repeated request returns the stored response of the first one.

The response is stored in the transaction that creates the resource, under an advisory lock. With a unique index alone,
a second request would wait for the first instead of failing immediately. `service.operations.retention` removes expired
responses.
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
    """The id and response that `make` returns, or those it returned for the first request with this key.

    Raises:
        Conflict: another request with the key is being processed.
        Invalid: the key was used with a different body.
    """
    if key is None:
        return make()
    if stored := stored_response(session, user, route, key, body):
        return stored
    resource_id, answer = make()
    _store(session, user, route, key, _digest(body), resource_id, answer)
    return resource_id, answer


def stored_response(session: Session, user: User, route: str, key: str, body: str) -> tuple[UUID, str] | None:
    """The stored id and response, or None for a new key, which is then locked until the end of the transaction.

    Raises as `once`.
    """
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
    if stored.body_digest != _digest(body):
        raise Invalid.field(HEADER, "this key was used with a different body; use a new key for a new request")
    return stored.resource_id, stored.answer


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _store(
    session: Session, user: User, route: str, key: str, body_digest: str, resource_id: UUID, answer: str
) -> None:
    """Store the response, in place of an expired one with the same key."""
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
