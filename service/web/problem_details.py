"""Errors as `application/problem+json` (RFC 9457), with the JSON pointer of each invalid field."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from service.errors import FieldError, Invalid, KotrainError, Malformed, Unavailable, Unreadable
from service.specs.text import counted
from service.validation import field_error

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""Invalid fields in a response."""
_OPENAPI = Lock()
TYPE_BASE = "https://kotrain.invalid/problems/"
"""Prefix of problem types. RFC 9457 requires a URI, which need not resolve."""


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
    """Register handlers that turn every error of the application into a problem document."""
    app.add_exception_handler(KotrainError, _kotrain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for unreachable in (OperationalError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(unreachable, _database_unreachable)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(Exception, _bug)


async def _kotrain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KotrainError)
    return respond(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if any(details["type"] == "json_invalid" for details in errors):
        return respond(request, Malformed("the body is not JSON: " + str(errors[0].get("ctx", {}).get("error", ""))))
    if isinstance(error.body, bytes) and error.body:
        return respond(
            request, Unreadable("the body is not declared as JSON; send the header 'Content-Type: application/json'")
        )
    fields = tuple(field_error(details, error.body) for details in errors[:MAX_ERRORS])
    if len(errors) > MAX_ERRORS:
        fields = (*fields, FieldError("", f"and {counted(len(errors) - MAX_ERRORS, 'more error')}"))
    messages = [": ".join(filter(None, (field.pointer, field.detail))) for field in fields]
    return respond(request, Invalid("; ".join(messages), fields))


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # raised by FastAPI for a body that is not text or nested too deeply
        return respond(request, Malformed("the body is not valid JSON"))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:  # of two routes with one path, Starlette names the methods of the first
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    document = {
        "type": TYPE_BASE + status.phrase.lower().replace(" ", "-"),
        "title": status.phrase,
        "status": int(status),
        "detail": str(error.detail),
        "instance": request.url.path,
        "errors": [],
    }
    return _answer(request, document, headers)


def _methods(request: Request) -> set[str]:
    """The methods of all routes with the path of the request, by the OpenAPI document; pages have GET only."""
    paths = openapi_document(request.app)["paths"].items()
    methods = {
        method.upper()
        for template, operations in paths
        if compile_path(template)[0].match(request.url.path)
        for method in operations
    } or {"GET"}
    return methods | {"HEAD"} if "GET" in methods else methods


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document. FastAPI keeps it, but cannot make it in two threads at once."""
    with _OPENAPI:
        return app.openapi()


def _answer(request: Request, document: dict[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    """The response. It carries the request id itself, because unexpected errors are handled outside all middleware."""
    return JSONResponse(
        document,
        document["status"],
        {**headers, REQUEST_ID: request_id(request), "X-Content-Type-Options": "nosniff"},
        MEDIA_TYPE,
    )


def request_id(request: Request) -> str:
    """The value of `X-Request-ID`, which is also logged."""
    return str(getattr(request.state, "request_id", ""))


async def _database_unreachable(request: Request, error: Exception) -> JSONResponse:
    log.warning("database not reachable: %s", str(error).splitlines()[0])
    is_read_only = isinstance(getattr(error, "orig", error), ReadOnlySqlTransaction)
    state = "read-only" if is_read_only else "not reachable"
    return respond(request, Unavailable(f"the database is {state}; try again in a few seconds"))


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if error.connection_invalidated:
        return await _database_unreachable(request, error)
    return await _bug(request, error)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request %s, %s %s", request_id(request), request.method, request.url.path, exc_info=error)
    return respond(request, KotrainError("unexpected error; the server's log has the details under this request id"))
