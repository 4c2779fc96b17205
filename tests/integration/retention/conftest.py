"""A store of files, and a user."""

import pytest
from sqlalchemy import select

from service.accounts import api_keys
from service.storage import database
from service.storage.files import Store
from service.storage.tables import User


@pytest.fixture
def files(empty, tmp_path):
    return Store(str(tmp_path / "files"), tmp_path / "scratch")


@pytest.fixture
def ada(empty):
    api_keys.create("ada")
    with database.transaction() as session:
        return session.scalars(select(User)).one()
