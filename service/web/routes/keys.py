"""`/v1/me` and `/v1/keys`: the current user, and API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from service.accounts import api_keys
from service.specs.bodies import Label, Me, Output
from service.storage.tables import ApiKey
from service.web.dependencies import Authorization, Database

router = APIRouter(prefix="/v1", tags=["keys"])


def calling_key(session: Database, authorization: Authorization) -> ApiKey:
    """The API key of the request."""
    return api_keys.authenticated_key(session, authorization)


CallingKey = Annotated[ApiKey, Depends(calling_key)]


class KeyView(Output):
    """An API key. The key itself is not stored."""

    id: UUID
    user: str
    is_admin: bool = Field(
        description="Whether its user is an admin, who may change the jobs and data of others and create keys."
    )
    fingerprint: str = Field(description="First 8 hexadecimal digits of the key's SHA-256.")
    is_used: bool = Field(description="Whether this request is authenticated with it.")
    created_at: datetime


class NewKey(KeyView):
    """A new API key."""

    key: str = Field(description="The key; it is not shown again.")


class Keys(Output):
    """API keys, newest first."""

    keys: list[KeyView]


class KeyRequest(BaseModel):
    """A request for a new API key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: Label = Field(description="Name of the user, who is created if new.", examples=["ada"])
    admin: bool = Field(False, description="Make the user an admin; false does not revoke admin rights.")


def view(key: ApiKey, used: ApiKey) -> KeyView:
    """The row as a response body."""
    return KeyView(
        id=key.id,
        user=key.user.name,
        is_admin=key.user.is_admin,
        fingerprint=api_keys.fingerprint(key),
        is_used=key.id == used.id,
        created_at=key.created_at,
    )


@router.get("/me", response_model=Me, summary="Show the current user")
def show_me(used: CallingKey) -> Me:
    """The user who owns the API key of the request."""
    return Me(user=used.user.name, is_admin=used.user.is_admin)


@router.get("/keys", response_model=Keys, summary="List API keys")
def show_all(session: Database, used: CallingKey) -> Keys:
    """Your own keys; for admins, the keys of all users."""
    return Keys(keys=[view(key, used) for key in api_keys.visible(session, used.user)])


@router.post("/keys", status_code=201, response_model=NewKey, summary="Create an API key")
def create(session: Database, used: CallingKey, body: KeyRequest) -> NewKey:
    """Admins only. The key is returned once and stored only as a hash."""
    row, key = api_keys.create_as(session, used.user, body.user, admin=body.admin)
    return NewKey(**view(row, used).model_dump(), key=key)


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke an API key")
def delete(session: Database, used: CallingKey, key_id: UUID) -> None:
    """Revoke one of your keys; admins can revoke any key.

    The key that authenticates the request and the last admin key cannot be revoked.
    """
    api_keys.delete(session, used, key_id)
