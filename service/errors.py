"""The errors a user can meet; each knows its HTTP status and its problem type (RFC 9457).

KotrainError
├── Invalid              422  the request is understood and wrong; names the fields
├── Malformed            400  the request cannot be read
├── Unauthorized         401
├── Forbidden            403
├── NotFound             404
├── Conflict             409  the state of things forbids it
├── TooLarge             413
├── Unreadable           415  the body is not announced as JSON
└── Unavailable          503  a part is away; try again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: where (a JSON pointer, or a query parameter's name) and what would be right."""

    pointer: str
    detail: str


class KotrainError(Exception):
    """Base: `detail` is a sentence for people, `extra` goes into the problem document as it is."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal server error"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.extra = extra


class Invalid(KotrainError):
    """The request is understood and wrong."""

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
    """The request cannot be read."""

    status, slug, title = HTTPStatus.BAD_REQUEST, "malformed", "The request cannot be read"


class Unauthorized(KotrainError):
    """No key, or one that is not known."""

    status, slug, title = HTTPStatus.UNAUTHORIZED, "unauthorized", "A valid API key is required"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(KotrainError):
    """The key is known, and this is somebody else's."""

    status, slug, title = HTTPStatus.FORBIDDEN, "forbidden", "Permission denied"


class NotFound(KotrainError):
    """There is no such thing."""

    status, slug, title = HTTPStatus.NOT_FOUND, "not-found", "Not found"


class Conflict(KotrainError):
    """The state of things forbids it."""

    status, slug, title = HTTPStatus.CONFLICT, "conflict", "The current state does not allow this"


class TooLarge(KotrainError):
    """The body is too large; the rest of it is not read."""

    status, slug, title = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The request is too large"
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class Unreadable(KotrainError):
    """The body is of another type."""

    status, slug, title = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type"


class Unavailable(KotrainError):
    """A part that is needed is away for now."""

    status, slug, title = HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}
