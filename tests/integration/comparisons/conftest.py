"""Fixtures of these tests."""

from datetime import timedelta

import pytest
from sqlalchemy import func
from starlette.testclient import TestClient

from service.accounts import api_keys as keys
from service.app import create_app
from service.storage import session as db
from service.storage.tables import Worker
from tests.integration.comparisons.asking import WORKER


@pytest.fixture
def worker(empty):
    """A worker that is known to be up, beyond the short lease of tests; nothing runs but what a test says."""
    with db.transaction() as session:
        session.add(Worker(**WORKER, heartbeat_at=func.clock_timestamp() + timedelta(hours=1)))


@pytest.fixture
def ada(api, worker):
    return api


@pytest.fixture
def bob(worker):
    key = keys.create("bob")
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client
