"""Requests that are generated from the OpenAPI document: no server error, and responses as it describes them."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi import checks

from service.app import create_app

SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", create_app())
NOT_PROMISED = [
    checks.positive_data_acceptance,  # the document does not know which jobs and names exist
    # GET /v1/jobs/actions is that of a job with this id; test_api.py checks 405 and Allow.
    *(checks.unsupported_method, checks.allow_header_conformance),
]
EXAMPLES = settings.default.max_examples // 6
"""Per operation: 4 in `make test`."""


@SCHEMA.exclude(path_regex="/events$").parametrize()  # streams do not end
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_generated_requests(case: Any, key: str) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, excluded_checks=NOT_PROMISED)
