"""Entity tags of responses (RFC 9110, 8.8.3)."""

from __future__ import annotations

import hashlib


def etag_of(body: bytes) -> str:
    """A strong entity tag: the first half of the body's SHA-256."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def is_unmodified(etag: str, if_none_match: str | None) -> bool:
    """Whether the `If-None-Match` header of a request lists the entity tag, so that 304 is the response."""
    return if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
