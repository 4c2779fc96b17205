import pytest

from service.accounts import api_keys


@pytest.fixture
def users(empty):
    """The users `ada` and `bob`."""
    for name in ("ada", "bob"):
        api_keys.create(name)
