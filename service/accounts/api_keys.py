"""API keys: create, list, delete, and look up the user of a request."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete as delete_from
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorized
from service.specs.patterns import LABEL
from service.storage.database import transaction
from service.storage.tables import ApiKey, User

PREFIX = "kt_"
MAX_KNOWN = 10_000
_KNOWN: dict[str, UUID] = {}
"""Hash of a key that was valid when it was used last -> its user."""


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def fingerprint(key: ApiKey) -> str:
    """The first digits of a key's hash, which identify it in lists; the key itself is not stored."""
    return key.digest[:8]


def create(name: str, *, admin: bool = False, key: str | None = None) -> str:
    """Create a key (or store the given one) for the user `name`, who is created if new. Only the hash is stored.

    `admin` makes the user an admin; False does not revoke admin rights. Raises Invalid for a name that filters cannot
    contain.
    """
    if not re.fullmatch(LABEL, name):
        raise Invalid.field("name", f"invalid user name {name!r}; use 1 to 64 letters, digits, spaces and _.:/@+=-")
    with transaction() as session:
        return _create(session, name, key or _random_key(), admin=admin)[1]


def create_as(session: Session, caller: User, name: str, *, admin: bool) -> tuple[ApiKey, str]:
    """`create` on behalf of an admin: the row, and the key, which cannot be read later. Raises Forbidden."""
    if not caller.is_admin:
        raise Forbidden("only an admin can create keys")
    return _create(session, name, _random_key(), admin=admin)


def _random_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _create(session: Session, name: str, key: str, *, admin: bool) -> tuple[ApiKey, str]:
    session.execute(insert(User).values(id=uuid7(), name=name, is_admin=False).on_conflict_do_nothing())
    user = session.scalars(select(User).where(User.name == name)).one()
    user.is_admin = user.is_admin or admin
    row = session.scalar(select(ApiKey).where(ApiKey.digest == _digest(key)))
    if row is None:
        row = ApiKey(user=user, digest=_digest(key))
        session.add(row)
        session.flush()
        session.refresh(row)
    _KNOWN[row.digest] = row.user_id
    return row, key


def remember_all() -> None:
    """Know all keys from the start, so that no limit for unknown ones applies to them."""
    with transaction() as session:
        rows = session.execute(select(ApiKey.digest, ApiKey.user_id).order_by(ApiKey.id.desc()).limit(MAX_KNOWN))
        _KNOWN.update((row.digest, row.user_id) for row in rows)


def any_exist() -> bool:
    """Whether any key exists."""
    with transaction() as session:
        return bool(session.scalar(select(func.count(ApiKey.id))))


def is_known(key: str) -> bool:
    """Whether the key is valid."""
    with transaction() as session:
        return session.scalar(select(ApiKey.id).where(ApiKey.digest == _digest(key))) is not None


def visible(session: Session, user: User) -> Sequence[ApiKey]:
    """The user's own keys, or all keys for an admin; newest first."""
    query = select(ApiKey).order_by(ApiKey.id.desc())
    return session.scalars(query if user.is_admin else query.where(ApiKey.user_id == user.id)).all()


def delete(session: Session, used: ApiKey, key_id: UUID) -> None:
    """Delete a key on behalf of the user of the key `used`.

    Raises:
        NotFound: no key has this id.
        Forbidden: the key belongs to another user, and the caller is not an admin.
        Conflict: it authenticates the request, or is the last key of any admin.
    """
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"key {key_id} not found")
    if key.user_id != used.user_id and not used.user.is_admin:
        raise Forbidden(f"key {key_id} belongs to {key.user.name}")
    if key.id == used.id:
        raise Conflict("this request is authenticated with that key; use another key to revoke it")
    if key.user.is_admin:
        # Locked, so that two admins cannot delete each other's keys at the same time.
        of_admins = select(ApiKey.id).join(User).where(User.is_admin).order_by(ApiKey.id).with_for_update(of=ApiKey)
        if set(session.scalars(of_admins)) <= {key_id}:
            raise Conflict("this is the last admin key; create another one first: `kotrain key NAME --admin`")
    session.execute(delete_from(ApiKey).where(ApiKey.id == key_id))


def authenticated_user(session: Session, authorization: str | None) -> User:
    """The user whose key is in the `Authorization` header. Raises Unauthorized."""
    return authenticated_key(session, authorization).user


def authenticated_key(session: Session, authorization: str | None) -> ApiKey:
    """The key in the `Authorization` header. Raises Unauthorized."""
    digest = _digest(key_in(authorization))
    row = session.scalar(select(ApiKey).where(ApiKey.digest == digest))
    if row is None:
        _KNOWN.pop(digest, None)
        raise Unauthorized("unknown API key")
    _KNOWN[digest] = row.user_id
    if len(_KNOWN) > MAX_KNOWN:
        del _KNOWN[next(iter(_KNOWN))]
    return row


def key_in(authorization: str | None) -> str:
    """The key in the `Authorization` header, which may be unknown. Raises Unauthorized."""
    if authorization is None:
        raise Unauthorized("missing API key; send the header 'Authorization: Bearer KEY'")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized("malformed Authorization header; send 'Authorization: Bearer KEY'")
    return key.strip()


def known_user(authorization: str | None) -> UUID | None:
    """The user whose key is in the `Authorization` header, if this process has seen it be valid.

    For limits, which need no certainty. It may have been revoked since.
    """
    try:
        return _KNOWN.get(_digest(key_in(authorization)))
    except Unauthorized:
        return None
