"""`/v1/me` and `/v1/keys`: whose key this is, and who else has one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel, ConfigDict, Field

from service.accounts import api_keys as keys
from service.specs.bodies import Label, Output
from service.storage.tables import ApiKey
from service.web.dependencies import Database

router = APIRouter(prefix="/v1", tags=["keys"])


def calling_key(session: Database, authorization: Annotated[str | None, Header()] = None) -> ApiKey:
    """The key that came with the request."""
    return keys.used(session, authorization)


CallingKey = Annotated[ApiKey, Depends(calling_key)]


class Me(Output):
    """Whose key it is."""

    user: str
    is_admin: bool


class KeyView(Output):
    """A key, which itself is not stored."""

    id: UUID
    user: str
    is_admin: bool = Field(description="Whether its user may change what belongs to others, and make keys.")
    fingerprint: str = Field(description="The first 8 hexadecimal digits of the key's SHA-256.")
    is_used: bool = Field(description="Whether this call came with it.")
    created_at: datetime


class NewKey(KeyView):
    """A key that was just made."""

    key: str = Field(description="Shown this once.")


class Keys(Output):
    """Keys, the newest first."""

    keys: list[KeyView]


class KeyRequest(BaseModel):
    """Whom a key is for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: Label = Field(description="Is made if need be.", examples=["ada"])
    admin: bool = Field(False, description="Makes the user an admin; false takes the right from nobody.")


def view(key: ApiKey, used: ApiKey) -> KeyView:
    """A row as its answer."""
    return KeyView(
        id=key.id,
        user=key.user.name,
        is_admin=key.user.is_admin,
        fingerprint=keys.fingerprint(key),
        is_used=key.id == used.id,
        created_at=key.created_at,
    )


@router.get("/me", response_model=Me)
def show_me(used: CallingKey) -> Me:
    """Who is calling."""
    return Me(user=used.user.name, is_admin=used.user.is_admin)


@router.get("/keys", response_model=Keys)
def show_all(session: Database, used: CallingKey) -> Keys:
    """One's own keys; for an admin, those of all users."""
    return Keys(keys=[view(key, used) for key in keys.visible(session, used.user)])


@router.post("/keys", status_code=201, response_model=NewKey)
def create(session: Database, used: CallingKey, body: KeyRequest) -> NewKey:
    """A new key, for admins to make; it is answered this once, and stored as a hash only."""
    made, key = keys.make_as(session, used.user, body.user, admin=body.admin)
    return NewKey(**view(made, used).model_dump(), key=key)


@router.delete("/keys/{key_id}", status_code=204)
def delete(session: Database, used: CallingKey, key_id: UUID) -> None:
    """Take a key back: one's own, or as an admin anybody's, but neither the one in use nor the last of all admins."""
    keys.delete(session, used, key_id)
