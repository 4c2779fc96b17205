"""A worker, and the API as called by two users."""

from datetime import timedelta

import pytest
from sqlalchemy import func

from service.accounts import api_keys
from service.storage import database
from service.storage.tables import Worker
from tests.clients import client
from tests.integration.comparisons.comparison_calls import WORKER


@pytest.fixture
def worker(empty):
    """A worker that counts as up for an hour; it runs nothing, the tests finish the jobs."""
    with database.transaction() as session:
        session.add(Worker(**WORKER, heartbeat_at=func.clock_timestamp() + timedelta(hours=1)))


@pytest.fixture
def ada(api, worker):
    return api


@pytest.fixture
def bob(worker):
    with client(api_keys.create("bob")) as bob:
        yield bob
