import pytest

from service import keys


@pytest.fixture
def users(empty):
    for name in ("ada", "bob"):
        keys.create(name)
