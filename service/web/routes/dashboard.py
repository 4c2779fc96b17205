"""The dashboard's pages and files. They hold nothing secret: what they show is asked of the API, with a key."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import NotFound

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGES = (
    "/",
    "/jobs",
    "/jobs/new",
    "/jobs/{_}",
    "/comparisons",
    "/comparisons/new",
    "/comparisons/{_}",
    "/leaderboard",
    "/data",
    "/keys",
)
PLOTLY = "plotly.js"
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
MAPS = "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='"
"""The style sheets that plotly 7.1 makes by itself: an empty one, for rules that its script adds, and one for maps."""
SAFE = {
    # Nothing from elsewhere, no other script or style within a page, and no other site may frame it.
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY} {MAPS}; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class File(NamedTuple):
    """A file as it is sent, compressed or not."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str


@cache
def _files() -> Mapping[str, Traversable]:
    """Every file that can be sent, by its path below `static`; a request never reaches the disk by another path."""
    found = dict(_below(resources.files("service.dashboard") / "static"))
    found[PLOTLY] = resources.files("plotly") / "package_data" / "plotly.min.js"  # as its wheel brings it
    return {name: path for name, path in found.items() if name.rpartition(".")[2] in MEDIA_TYPES}


def _below(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files of a folder and of all folders in it, by their paths below it."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}", path


@cache
def _file(name: str) -> File:
    """One of them, read and compressed once."""
    body = _files()[name].read_bytes()
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return File(body, gzip.compress(body, mtime=0), media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _send(name: str, accepts: str, known: str) -> Response:
    if name not in _files():
        raise NotFound(f"the dashboard has no file {name[:100]}")
    found = _file(name)
    # Always asked for again: after an upgrade, old and new files must not meet.
    headers = {**SAFE, "ETag": found.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if found.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    if "gzip" in accepts:
        return Response(found.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.media_type)
    return Response(found.body, headers=headers, media_type=found.media_type)


Accepts = Annotated[str, Header(alias="Accept-Encoding")]
Known = Annotated[str, Header(alias="If-None-Match")]


@router.get("/dashboard/{name:path}")
def file(name: str, accepts: Accepts = "", known: Known = "") -> Response:
    """A style sheet, a script, or the icon."""
    return _send(name, accepts, known)


def page(accepts: Accepts = "", known: Known = "") -> Response:
    """The one page, whose scripts show what its address says."""
    return _send("index.html", accepts, known)


for path in PAGES:
    router.add_api_route(path, page, methods=["GET"])


class Lost:
    """Answers what no route does: a person in a browser with the page, which says so, everybody else as before."""

    def __init__(self, before: ASGIApp) -> None:
        self.before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        headers = Headers(scope=scope)
        is_person = scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("Accept", "")
        if not is_person or scope["path"].startswith("/v1/"):
            await self.before(scope, receive, send)
            return
        answer = _send("index.html", headers.get("Accept-Encoding", ""), known="")
        answer.status_code = HTTPStatus.NOT_FOUND
        await answer(scope, receive, send)
