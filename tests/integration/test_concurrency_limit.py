"""Many concurrent requests: those that hold a connection do not deadlock with those that hold a thread."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.integration.streams.conftest import served

AT_ONCE = 120
"""More than the threads and connections together."""


@pytest.fixture
def address(key):
    with served(key) as server:
        yield server.url


def test_many_concurrent_requests_succeed(key, address):
    limits = httpx2.Limits(max_connections=AT_ONCE)
    with (
        httpx2.Client(
            base_url=address, headers={"Authorization": f"Bearer {key}"}, limits=limits, timeout=60
        ) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        paths = ["/v1/me", "/v1/jobs", "/v1/overview", "/v1/workers"]
        answers = list(pool.map(client.get, [paths[number % len(paths)] for number in range(4 * AT_ONCE)]))
    assert {answer.status_code for answer in answers} == {200}
