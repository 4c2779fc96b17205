"""Every route of the API without a key and with a wrong one: 401, before anything else of the request is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.app import create_app

OPEN = {"/healthz", "/readyz"}
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


def routes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation of the OpenAPI document."""
    for path, operations in create_app().openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


ROUTES = list(routes())
CLOSED = [(method, path) for method, path, _ in ROUTES if path not in OPEN]
VALUES = [UNKNOWN, "{"]
"""Values of path parameters: an id that does not exist, and one that is none."""


def called(path: str, value: str) -> str:
    return "/".join(value if part.startswith("{") else part for part in path.split("/"))


def test_openapi_marks_every_route_that_needs_a_key() -> None:
    document = create_app().openapi()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {path for _, path, operation in ROUTES if "security" not in operation} == OPEN
    assert len(CLOSED) > 30


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer kt_wrong", "bearer kt_wrong", "Basic a2V5", "kt_wrong", "Bearer \u00e9"],
)
def test_requests_without_a_valid_key_are_refused(api, header: str | None) -> None:
    """Also if their parameters or their body are invalid: those say nothing to a stranger."""
    del api.headers["Authorization"]
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for method, path in CLOSED:
        for value in VALUES:
            options = {"content": b"{", "params": {"unknown": "1"}} if method == "POST" else {"params": {"limit": "x"}}
            api.app.state.budgets.refill()
            response = api.request(method, called(path, value), headers=headers, **options)
            assert response.status_code == 401, (method, path, value, response.text)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_body_is_not_read_without_a_valid_key(api) -> None:
    """A body that is larger than the limit is not even counted."""
    api.headers["Authorization"] = "Bearer kt_wrong"
    assert api.post("/v1/jobs", content=b"x" * 2_000_000).status_code == 401
