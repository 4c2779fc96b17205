"""API keys: make one, and say whose one is."""

from __future__ import annotations

import hashlib
import re
import secrets

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db import transaction
from service.errors import Invalid, Unauthorized
from service.models import ApiKey, User
from service.schemas import LABEL

PREFIX = "kt_"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def create(name: str, *, admin: bool = False, key: str | None = None) -> str:
    """A new key (or the given one) for the user `name`, who is made if need be; it is stored as a hash only.

    `admin` raises the user, also one who is there already; without it nobody loses the right. `Invalid` for a name
    that could not stand in a filter of the job list.
    """
    if not re.fullmatch(LABEL, name):
        raise Invalid.field("name", f"a user's name has 1 to 64 letters, digits or signs of ' .:/@+=_-', not {name!r}")
    key = key or PREFIX + secrets.token_urlsafe(32)
    with transaction() as session:
        user = session.scalar(select(User).where(User.name == name))
        if user is None:
            user = User(name=name, is_admin=False)
            session.add(user)
        user.is_admin = user.is_admin or admin
        session.flush()
        if session.scalar(select(ApiKey.id).where(ApiKey.digest == _digest(key))) is None:
            session.add(ApiKey(user_id=user.id, digest=_digest(key)))
    return key


def any_exist() -> bool:
    """Whether somebody could log in at all."""
    with transaction() as session:
        return bool(session.scalar(select(func.count(ApiKey.id))))


def owner(session: Session, authorization: str | None) -> User:
    """The user whose key the `Authorization` header carries; `Unauthorized` says what is wrong with it."""
    if authorization is None:
        raise Unauthorized("no API key: send the header 'Authorization: Bearer KEY'")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized("the Authorization header must read 'Bearer KEY'")
    found = session.scalar(select(ApiKey).where(ApiKey.digest == _digest(key.strip())))
    if found is None:
        raise Unauthorized("this API key is not known here")
    return found.user
