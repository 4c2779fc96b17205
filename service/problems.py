"""Errors as `application/problem+json` (RFC 9457), with the JSON pointer of each wrong field."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from service.errors import FieldError, Invalid, KotrainError, Malformed, Unavailable, Unreadable

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://kotrain.invalid/problems/"
"""Stable names, not addresses: RFC 9457 asks for a URI and allows one that cannot be opened."""


def respond(request: Request, error: KotrainError) -> JSONResponse:
    """The problem document of an error."""
    document = {
        "type": TYPE_BASE + error.slug,
        "title": error.title,
        "status": int(error.status),
        "detail": error.detail,
        "instance": request.url.path,
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in error.errors],
        **error.extra,
    }
    return _answer(request, document, error.headers)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(KotrainError, _kotrain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for away in (OperationalError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(Exception, _bug)


async def _kotrain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KotrainError)
    return respond(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return respond(request, Malformed("the body is not JSON: " + str(found[0].get("ctx", {}).get("error", ""))))
    if isinstance(error.body, bytes) and error.body:
        return respond(
            request, Unreadable("the body was not read as JSON: send the header 'Content-Type: application/json'")
        )
    fields = tuple(field_error(one, error.body) for one in found)
    told = (": ".join(filter(None, (field.pointer, field.detail))) for field in fields)
    return respond(request, Invalid("; ".join(told), fields))


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # FastAPI's own, for a body that is no text or nested without end
        return respond(request, Malformed("the body is not JSON that can be read"))
    document = {
        "type": TYPE_BASE + status.phrase.lower().replace(" ", "-"),
        "title": status.phrase,
        "status": int(status),
        "detail": str(error.detail),
        "instance": request.url.path,
        "errors": [],
    }
    return _answer(request, document, error.headers or {})


def _answer(request: Request, document: dict[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    """An unexpected error is answered outside of all middleware: the request id is put in here."""
    return JSONResponse(document, document["status"], {**headers, REQUEST_ID: request_id(request)}, MEDIA_TYPE)


def request_id(request: Request) -> str:
    """What `X-Request-ID` says, to find the request in the log by."""
    return str(getattr(request.state, "request_id", ""))


async def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("database away: %s", str(error).splitlines()[0])
    return respond(request, Unavailable("the database does not answer; try again in a few seconds"))


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if error.connection_invalidated:
        return await _database_away(request, error)
    return await _bug(request, error)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request %s, %s %s", request_id(request), request.method, request.url.path, exc_info=error)
    return respond(request, KotrainError("an unexpected error; the server's log has the details under this request id"))


# --- what pydantic says, in the words of the body --------------------------------------------------------------------


def field_error(error: dict[str, Any], body: Any) -> FieldError:
    """One of pydantic's errors as a pointer into the body that was sent, and what would be right there."""
    source, *location = error["loc"] or ("body",)
    if source != "body":
        return FieldError(".".join(str(part) for part in location) or str(source), _detail(error))
    path = _path_in(body, location)
    context = error.get("ctx", {})
    if error["type"].startswith("union_tag"):
        tag = "base" if path and path[-1] == "params" else "name"
        if not (isinstance(_at(body, path), str)):
            path = [*path, tag]
        return FieldError(_pointer(path), _unknown_choice(path, tag, context))
    if error["type"] == "unfit":
        path = [*path, context["field"]]
    return FieldError(_pointer(path), _detail(error))


def _path_in(body: Any, location: Sequence[Any]) -> list[Any]:
    """Pydantic's location without the names of union members, which are not in the body."""
    path: list[Any] = []
    node = body
    for index, part in enumerate(location):
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        )
        if inside:
            node = node[part]
            path.append(part)
        elif index == len(location) - 1 and isinstance(node, dict) and not _is_member(node, part):
            path.append(part)  # a field that is missing
    return path


def _is_member(node: dict[str, Any], part: Any) -> bool:
    return part in (node.get("name"), node.get("base", "adam"))


def _at(body: Any, path: Sequence[Any]) -> Any:
    for part in path:
        body = body[part]
    return body


def _pointer(path: Sequence[Any]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _unknown_choice(path: Sequence[Any], tag: str, context: dict[str, Any]) -> str:
    what = str(path[0]) if tag == "name" else "base optimizer"
    if "tag" not in context:
        return f"give the {what} as a name, or as an object with '{tag}' and 'params'"
    known = re.findall(r"'([^']*)'", str(context["expected_tags"]))
    close = difflib.get_close_matches(str(context["tag"]), known, 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"unknown {what} '{str(context['tag'])[:64]}'{hint}; known: {', '.join(known)}"


def _detail(error: dict[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "missing":
        return "this field is required"
    return message[:1].lower() + message[1:]
