"""HTTP requests with retries, so that they survive a short outage of the server.

Every API call is safe to repeat: reads change nothing, cancel and retry are idempotent, and submissions carry an
idempotency key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from kotrain import address, json_body
from kotrain.errors import ApiError, ConnectionFailed, UnexpectedResponse, from_problem
from service.specs.bodies import Problem
from service.specs.text import counted

ATTEMPTS = 4
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 10.0

UPLOAD_SECONDS = 3600.0
"""Read timeout of uploads: the server validates the whole file before it responds."""
PIECE_BYTES = 2**20

Answer = TypeVar("Answer", bound=BaseModel)
OnSent = Callable[[int], None]
"""Called with the number of bytes sent so far."""


class Transport:
    """Sends authenticated requests, repeats those that may succeed later, and raises error responses as exceptions."""

    def __init__(self, http: httpx2.Client, key: str | None) -> None:
        self.http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def call(
        self,
        answer: type[Answer],
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_on: frozenset[int] = frozenset({429, 503}),
    ) -> Answer:
        """The response body, parsed as `answer`; see `send`."""
        response = self.send(method, path, query=query, body=body, headers=headers, repeat_on=repeat_on)
        return _parsed(answer, response)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_on: frozenset[int] = frozenset({429, 503}),
    ) -> httpx2.Response:
        """Send a request and return its successful response.

        Connection failures and the statuses in `repeat_on` are retried, up to 4 attempts in all, after 0.2, 0.4 and
        0.8 s, or after `Retry-After`, at most 10 s. Raises `ConnectionFailed`, or the `ApiError` of the last attempt,
        and `InvalidValue` if `body` cannot be sent as JSON.
        """
        params = {name: value for name, value in (query or {}).items() if value is not None}
        all_headers = {**self._headers, **(headers or {})}
        content = None if body is None else json_body.encode(body)
        if content is not None:
            all_headers["Content-Type"] = "application/json"
        request = self.http.build_request(method, path, params=params, content=content, headers=all_headers)
        for attempt in range(1, ATTEMPTS + 1):
            wait_seconds = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            try:
                response = self.http.send(request)
            except httpx2.TransportError as cause:
                if attempt == ATTEMPTS:
                    raise ConnectionFailed(str(self.http.base_url).rstrip("/"), cause) from cause
            else:
                if response.is_success:
                    return response
                if attempt == ATTEMPTS or response.status_code not in repeat_on:
                    raise self._error(response)
                wait_seconds = _retry_after(response) or wait_seconds
            time.sleep(min(wait_seconds, MAX_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    def _error(self, response: httpx2.Response) -> ApiError:
        """The exception for an error response; a missing key is named in terms of the client, not of HTTP."""
        error = problem_of(response)
        if error.status == 401 and not self._headers:
            detail = address.missing_key(str(self.http.base_url).rstrip("/"))
            return from_problem(error.problem.model_copy(update={"detail": detail}))
        return error

    def upload(
        self, answer: type[Answer], path: str, file: Path, query: Mapping[str, Any], on_sent: OnSent | None
    ) -> Answer:
        """Upload a file in pieces, without retries. Raises `ConnectionFailed` or an `ApiError`."""
        params = {name: value for name, value in query.items() if value is not None}
        headers = {
            **self._headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
        }
        timeout = httpx2.Timeout(30.0, read=UPLOAD_SECONDS)
        request = self.http.build_request(
            "POST", path, params=params, content=_pieces(file, on_sent), headers=headers, timeout=timeout
        )
        try:
            response = self.http.send(request)
        except httpx2.TransportError as cause:
            raise ConnectionFailed(str(self.http.base_url).rstrip("/"), cause) from cause
        if not response.is_success:
            raise self._error(response)
        return _parsed(answer, response)


def _parsed(answer: type[Answer], response: httpx2.Response) -> Answer:
    """The body of a response. Raises UnexpectedResponse if it is not one of kotrain."""
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        kind = response.headers.get("Content-Type", "").partition(";")[0] or "no content type"
        if kind == "application/json":
            advice = (
                "does the server have another version than this client? (invalid: "
                f"{counted(error.error_count(), 'field')})"
            )
        else:
            advice = "is it the page of a login or of a proxy, and is KOTRAIN_URL right?"
        raise UnexpectedResponse(f"{response.url} answered with {kind}, not as kotrain does; {advice}") from error


def _pieces(path: Path, on_sent: OnSent | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            sent += len(piece)
            if on_sent is not None:
                on_sent(sent)


def problem_of(response: httpx2.Response) -> ApiError:
    """The exception for an error response, also for one of a proxy that has no problem body."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        title = f"{response.status_code} {response.reason_phrase}".strip()
        problem = Problem(
            type="about:blank",
            title=title,
            status=response.status_code,
            detail=f"the server returned {title}{_target(response)}",
            errors=[],
        )
    return from_problem(problem)


def _target(response: httpx2.Response) -> str:
    """Where a redirect points to: kotrain sends none, and following one would pass on the key."""
    location = response.headers.get("Location")
    return f" to {location}; set KOTRAIN_URL to the final address" if location and response.is_redirect else ""


def _retry_after(response: httpx2.Response) -> float | None:
    """The seconds in `Retry-After`; None without the header or with a date, which kotrain never sends."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
