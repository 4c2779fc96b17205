"""A client of the SDK on the real API, in this process."""

import pytest

from kotrain import Client


@pytest.fixture
def client(api):
    return Client(http=api)
