"""The dashboard's pages and files. They contain no data: scripts fetch it from the API, which requires a key."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.config import settings
from service.errors import NotFound
from service.web.etags import etag_of, is_unmodified
from service.web.problem_details import openapi_document

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
    "/code",
    "/keys",
)
PACKAGED = {
    "plotly.js": ("plotly", "package_data/plotly.min.js"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css"),
    "swagger-ui.js": ("fastapi_offline", "static/swagger-ui-bundle.js"),
}
"""Files of installed packages, as (package, path in the package)."""
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
MAPS = "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='"
"""Hashes of the style sheets that plotly 7.1 inserts: an empty one, to which its script adds rules; one for maps."""
SECURITY_HEADERS = {
    # Nothing from other hosts, no inline scripts or styles, and no other site may frame the page.
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY} {MAPS}; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class File(NamedTuple):
    """A file with its compressed form and headers."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str


@cache
def _files() -> Mapping[str, Traversable]:
    """All files that can be requested, by path below `static`; requests for other paths never access the disk."""
    files = dict(_below(resources.files("service.dashboard") / "static"))
    files |= {name: resources.files(package) / path for name, (package, path) in PACKAGED.items()}
    return {name: path for name, path in files.items() if name.rpartition(".")[2] in MEDIA_TYPES}


def _below(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files of a folder and its subfolders, by relative path."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}", path


_MAKING = ThreadPoolExecutor(1, thread_name_prefix="files")
_MADE: dict[str, Future[File]] = {}


async def _once(made: dict[str, Future[File]], name: str, make: Callable[[], File]) -> File:
    """The file of this name, made once however many requests wait for it: compressing a large script takes a moment."""
    if name not in made or (made[name].done() and made[name].exception() is not None):
        made[name] = _MAKING.submit(make)
    return made[name].result() if made[name].done() else await asyncio.shield(asyncio.wrap_future(made[name]))


def _file(name: str, prefix: str) -> File:
    """A file, read and compressed; the addresses in a page begin with the prefix."""
    body = _files()[name].read_bytes()
    if name.endswith(".html"):
        body = body.replace(b'="/', f'="{prefix}/'.encode())
    return _compressed(body, MEDIA_TYPES[name.rpartition(".")[2]])


def _compressed(body: bytes, media_type: str) -> File:
    return File(body, gzip.compress(body, mtime=0), media_type, etag_of(body))


async def _send(name: str, accept_encoding: str, if_none_match: str | None) -> Response:
    if name not in _files():
        raise NotFound(f"dashboard file {name[:100]} not found")
    prefix = settings().path_prefix
    file = await _once(_MADE, prefix + name, partial(_file, name, prefix))
    return _respond(file, accept_encoding, if_none_match)


def _respond(file: File, accept_encoding: str, if_none_match: str | None) -> Response:
    # Revalidated on each use: after an upgrade, old and new files must not mix.
    headers = {**SECURITY_HEADERS, "ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if is_unmodified(file.etag, if_none_match):
        return Response(status_code=304, headers=headers)
    if "gzip" in accept_encoding:
        return Response(file.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)


AcceptEncoding = Annotated[str, Header()]
IfNoneMatch = Annotated[str | None, Header()]


@router.get("/dashboard/{name:path}")
async def file(name: str, accept_encoding: AcceptEncoding = "", if_none_match: IfNoneMatch = None) -> Response:
    """A style sheet, a script, or the icon."""
    return await _send(name, accept_encoding, if_none_match)


async def page(accept_encoding: AcceptEncoding = "", if_none_match: IfNoneMatch = None) -> Response:
    """The app shell, whose scripts render the page at the requested address."""
    return await _send("index.html", accept_encoding, if_none_match)


@router.get("/docs")
async def docs(accept_encoding: AcceptEncoding = "", if_none_match: IfNoneMatch = None) -> Response:
    """The API reference. FastAPI's own page loads Swagger UI from the web, which many lab servers cannot reach."""
    return await _send("docs.html", accept_encoding, if_none_match)


@router.get("/openapi.json")
async def openapi(
    request: Request, accept_encoding: AcceptEncoding = "", if_none_match: IfNoneMatch = None
) -> Response:
    """The OpenAPI document, which takes a second to make."""
    app = request.app
    if not hasattr(app.state, "documents"):
        app.state.documents = {}

    def make() -> File:
        return _compressed(json.dumps(openapi_document(app), ensure_ascii=False).encode(), "application/json")

    return _respond(await _once(app.state.documents, "openapi.json", make), accept_encoding, if_none_match)


@router.get("/redoc")
def redoc() -> Response:
    """FastAPI's address of a second reference, which would load its script from the web, too."""
    return RedirectResponse("/docs")


for path in PAGES:
    router.add_api_route(path, page, methods=["GET"])


class NotFoundPage:
    """Serves the app shell with 404 to browsers; other clients get the API's 404."""

    def __init__(self, fallback: ASGIApp) -> None:
        self.fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        headers = Headers(scope=scope)
        is_browser = scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("Accept", "")
        if not is_browser or scope["path"].startswith("/v1/"):
            await self.fallback(scope, receive, send)
            return
        response = await _send("index.html", headers.get("Accept-Encoding", ""), if_none_match=None)
        response.status_code = HTTPStatus.NOT_FOUND
        await response(scope, receive, send)
