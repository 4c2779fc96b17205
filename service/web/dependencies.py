"""Dependencies of the routes: session, caller, idempotency keys, strict query parameters, page cursors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from service.accounts import api_keys
from service.errors import Invalid
from service.specs.bodies import IdPart
from service.specs.patterns import VISIBLE
from service.storage import ids
from service.storage.database import per_request, transaction
from service.storage.tables import Comparison, Job, User

# scope="function" commits before the response is sent; FastAPI's default would send first and commit later.
Database = Annotated[Session, Depends(per_request, scope="function")]


class _BearerKey(SecurityBase):
    """The header `Authorization`, which the OpenAPI document describes as a security scheme."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="API key, as `kotrain key NAME` prints it.")
        self.scheme_name = "key"

    async def __call__(self, request: Request) -> str | None:
        return request.headers.get("Authorization")


Authorization = Annotated[str | None, Security(_BearerKey())]


def caller(session: Database, authorization: Authorization) -> User:
    """The user who owns the API key of the request."""
    return api_keys.authenticated_user(session, authorization)


Caller = Annotated[User, Depends(caller)]


def passing_caller(authorization: Authorization) -> User:
    """Like `caller`, without an open session, for requests that wait for something other than the database."""
    with transaction() as session:
        return api_keys.authenticated_user(session, authorization)


PassingCaller = Annotated[User, Depends(passing_caller)]


def _job_id(session: Database, job_id: IdPart) -> UUID:
    return ids.resolve(session, Job, job_id)


def _comparison_id(session: Database, comparison_id: IdPart) -> UUID:
    return ids.resolve(session, Comparison, comparison_id)


def _passing_job_id(job_id: IdPart) -> UUID:
    """Like `JobId`, without an open session."""
    with transaction() as session:
        return ids.resolve(session, Job, job_id)


def _passing_comparison_id(comparison_id: IdPart) -> UUID:
    """Like `ComparisonId`, without an open session."""
    with transaction() as session:
        return ids.resolve(session, Comparison, comparison_id)


# The ids in paths, resolved by `service.storage.ids`; in a signature they follow the caller, whose key comes first.
JobId = Annotated[UUID, Depends(_job_id)]
ComparisonId = Annotated[UUID, Depends(_comparison_id)]
PassingJobId = Annotated[UUID, Depends(_passing_job_id)]
PassingComparisonId = Annotated[UUID, Depends(_passing_comparison_id)]


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=VISIBLE,
        description="A repeated key returns the stored response of the first request.",
    ),
]


class StrictQuery(BaseModel):
    """Query parameters. Unknown ones are rejected rather than ignored."""

    model_config = ConfigDict(extra="forbid")


def to_cursor(listed: str, id_: UUID) -> str:
    """Encode an id of the list `listed`, such as "jobs", as an opaque cursor."""
    return base64.urlsafe_b64encode(_mark(listed) + id_.bytes).decode().rstrip("=")


def from_cursor(listed: str, cursor: str | None) -> UUID | None:
    """Decode the id in a cursor of this list. Raises Invalid, also for a cursor of another list."""
    if cursor is None:
        return None
    with suppress(ValueError, binascii.Error):
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        id_ = UUID(bytes=content[len(_mark(listed)) :])
        if content.startswith(_mark(listed)) and id_.version == 7:  # the version of all ids
            return id_
    raise Invalid.field("after", f"invalid cursor; pass `next` of an earlier page of {listed}")


def next_cursor(listed: str, ids: Sequence[UUID], has_more: bool) -> str | None:
    """The cursor of the page after these ids; None if there are no more."""
    return to_cursor(listed, ids[-1]) if has_more else None


def _mark(listed: str) -> bytes:
    return listed.encode() + b":"
