"""Requests that are generated from the OpenAPI document: no server error, and responses as it describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks

from service.app import create_app
from service.web.budgets import Budget
from tests.thoroughness import IS_FULL

APPLICATION = create_app()
APPLICATION.state.budgets.refusals = Budget(units=100_000, per_second=5)  # hundreds of calls have no valid key
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APPLICATION).exclude(path_regex="/events$")
"""Without streams, which do not end."""
LARGE = {"path_regex": "^/v1/(jobs|comparisons)$", "method": "POST"}
"""Their bodies have so many fields that the boundary values of each are 4,700 requests, a minute of CPU time."""
NOT_PROMISED = [
    checks.positive_data_acceptance,  # the document does not know which jobs and names exist
    # GET /v1/jobs/actions is that of a job with this id; test_api.py checks 405 and Allow.
    *(checks.unsupported_method, checks.allow_header_conformance),
]
EXAMPLES = settings.default.max_examples // 6
"""Random requests per operation: 4 in `make test`."""


def generated(*phases: Phase) -> settings:
    """Settings of hypothesis. `Phase.explicit` are examples of the document and boundary values of each parameter."""
    return settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def stopped(schema: None) -> Iterator[None]:
    """The application that schemathesis starts at the first request has a connection of its own to the database."""
    yield
    asgi.shutdown_lifespans()


def check(case: Any, key: str) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, excluded_checks=NOT_PROMISED)


@SCHEMA.exclude(**LARGE).parametrize()
@generated(Phase.explicit, Phase.generate)
def test_requests(case: Any, key: str) -> None:
    check(case, key)


@SCHEMA.include(**LARGE).parametrize()
@generated(*([Phase.explicit] if IS_FULL else []), Phase.generate)
def test_requests_with_large_bodies(case: Any, key: str) -> None:
    check(case, key)
