import pytest

from service.accounts import api_keys as keys


@pytest.fixture
def users(empty):
    for name in ("ada", "bob"):
        keys.create(name)
