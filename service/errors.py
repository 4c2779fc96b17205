"""Errors for users, each with its HTTP status and problem type (RFC 9457).

KotrainError
├── Invalid              422  well-formed, but wrong; names the fields
├── Malformed            400  cannot be parsed
├── Unauthorized         401
├── Forbidden            403
├── NotFound             404
├── Conflict             409  not allowed in the current state
├── TooLarge             413
├── Misdirected          421  the name in `Host` is not one of this server
├── Unreadable           415  the body is not declared as JSON
├── TooMany              429  this client or user has too many requests; try again
├── TooManyConnections   503  the server has no room for the connection; try again
├── StorageFull          507  the disk is almost full
└── Unavailable          503  a dependency is unavailable; try again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldError:
    """An invalid field: its JSON pointer (or the name of a query parameter), and what is wrong or would be valid."""

    pointer: str
    detail: str


class KotrainError(Exception):
    """Base class. `detail` is a sentence for the user; `extra` is added to the problem document."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal server error"
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.extra = extra


class Invalid(KotrainError):
    """The request is well-formed, but wrong."""

    status, slug, title = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "The request is not valid"

    @classmethod
    def field(cls, pointer: str, detail: str) -> Invalid:
        """One wrong field."""
        return cls(detail, (FieldError(pointer, detail),))

    @classmethod
    def fields(cls, errors: Sequence[FieldError]) -> Invalid:
        """Several wrong fields."""
        return cls("; ".join(f"{error.pointer}: {error.detail}" for error in errors), tuple(errors))


class Malformed(KotrainError):
    """The request cannot be parsed."""

    status, slug, title = HTTPStatus.BAD_REQUEST, "malformed", "The request cannot be read"


class Unauthorized(KotrainError):
    """The API key is missing or unknown."""

    status, slug, title = HTTPStatus.UNAUTHORIZED, "unauthorized", "A valid API key is required"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class Forbidden(KotrainError):
    """The user may not do this."""

    status, slug, title = HTTPStatus.FORBIDDEN, "forbidden", "Permission denied"


class NotFound(KotrainError):
    """The resource does not exist."""

    status, slug, title = HTTPStatus.NOT_FOUND, "not-found", "Not found"


class Conflict(KotrainError):
    """The current state does not allow this."""

    status, slug, title = HTTPStatus.CONFLICT, "conflict", "The current state does not allow this"


class TooLarge(KotrainError):
    """The body is too large; the rest of it is not read."""

    status, slug, title = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The request is too large"
    headers: Mapping[str, str] = {"Connection": "close"}


class Misdirected(KotrainError):
    """The request is for a host that this server is not known as."""

    status, slug, title = HTTPStatus.MISDIRECTED_REQUEST, "misdirected", "Unknown host"


class Unreadable(KotrainError):
    """The body is not declared as JSON."""

    status, slug, title = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type"


class TooMany(KotrainError):
    """This client or user has too many requests at once; later, they are accepted."""

    status, slug, title = HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"

    def __init__(self, detail: str, retry_seconds: int = 5) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_seconds)}


class TooManyConnections(KotrainError):
    """The server has no room for the connection."""

    status, slug, title = HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Too many connections"
    headers: Mapping[str, str] = {"Retry-After": "2"}

    def __init__(self) -> None:
        super().__init__("this server has too many open connections; close some, or try again in a few seconds")


class StorageFull(KotrainError):
    """The disk has no room for more."""

    status, slug, title = HTTPStatus.INSUFFICIENT_STORAGE, "storage-full", "The disk is almost full"


class Unavailable(KotrainError):
    """A dependency is temporarily unavailable."""

    status, slug, title = HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"
    headers: Mapping[str, str] = {"Retry-After": "5"}
