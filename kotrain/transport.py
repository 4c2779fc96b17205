"""Requests that survive a short absence of the server.

Every call of the API may be repeated: reads change nothing, cancel and retry answer the same again, and a submission
carries an idempotency key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from kotrain.errors import ApiError, ConnectionFailed, from_problem
from service.specs.bodies import Problem

ATTEMPTS = 4
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 10.0

UPLOAD_SECONDS = 3600.0
"""For the answer to a file, which is read as a whole before it comes."""
PIECE_BYTES = 2**20

Answer = TypeVar("Answer", bound=BaseModel)
OnSent = Callable[[int], None]
"""Called with the bytes that were sent so far."""


class Transport:
    """Sends requests with the key, repeats them where that can help, and turns problems into exceptions."""

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
        repeat_on: frozenset[int] = frozenset({503}),
    ) -> Answer:
        """The answer's body as `answer`; see `send`."""
        response = self.send(method, path, query=query, body=body, headers=headers, repeat_on=repeat_on)
        return answer.model_validate_json(response.content)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_on: frozenset[int] = frozenset({503}),
    ) -> httpx2.Response:
        """The answer, once it is one.

        Connection failures and the statuses in `repeat_on` are tried again, up to 4 times in all, after 0.2, 0.4 and
        0.8 s or what `Retry-After` says, at most 10 s. Raises `ConnectionFailed` or the `ApiError` of the last one.
        """
        params = {name: value for name, value in (query or {}).items() if value is not None}
        all_headers = {**self._headers, **(headers or {})}
        # Python's own JSON has NaN and Infinity; the service's refusal names the field that holds one.
        content = None if body is None else json.dumps(body).encode()
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
                    raise problem_of(response)
                wait_seconds = _retry_after(response) or wait_seconds
            time.sleep(min(wait_seconds, LONGEST_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    def upload(
        self, answer: type[Answer], path: str, file: Path, query: Mapping[str, Any], on_sent: OnSent | None
    ) -> Answer:
        """The answer to a file, sent once, piece by piece. Raises `ConnectionFailed` or an `ApiError`."""
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
            raise problem_of(response)
        return answer.model_validate_json(response.content)


def _pieces(path: Path, on_sent: OnSent | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            sent += len(piece)
            if on_sent is not None:
                on_sent(sent)


def problem_of(response: httpx2.Response) -> ApiError:
    """The exception of an answer with an error; also of one that some proxy wrote, not kotrain."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        title = f"{response.status_code} {response.reason_phrase}".strip()
        problem = Problem(
            type="about:blank", title=title, status=response.status_code, detail=f"the server says {title}", errors=[]
        )
    return from_problem(problem)


def _retry_after(response: httpx2.Response) -> float | None:
    """The seconds that the server asks to wait; None where it names none (or a date, which kotrain never does)."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
