"""The API with a data folder for one test."""

import io

import numpy as np
import pytest

from service.accounts import api_keys
from service.config import settings
from tests.clients import client
from tests.unit.service.datasets.uploads.files import folders


@pytest.fixture
def data_dir(schema, tmp_path, monkeypatch):
    """A data folder for one test, with uploads limited to 3 MB."""
    monkeypatch.setenv("KOTRAIN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KOTRAIN_MAX_UPLOAD_BYTES", "3000000")
    monkeypatch.setenv("KOTRAIN_MAX_UPLOADS_PER_USER", "100")
    settings.cache_clear()
    yield tmp_path / "data"
    settings.cache_clear()


@pytest.fixture
def api(data_dir, key):
    with client(key) as ada:
        yield ada


@pytest.fixture
def send(api, tmp_path):
    """Upload a data set: by default a zip archive of images, four for each of three classes."""

    def send(name="flowers", content=None, **query):
        if content is None:
            content = folders(tmp_path / "flowers.zip").read_bytes()
        return api.post("/v1/datasets", params={"name": name, "format": "zip", **query}, content=content)

    return send


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def as_user():
    """Create a user's key and return its headers."""

    def headers(name, *, admin=False):
        return {"Authorization": f"Bearer {api_keys.create(name, admin=admin)}"}

    return headers
