"""A home, and the settings of an embedded installation."""

import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty home."""
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("KOTRAIN_HOME", str(place))
    return place


@pytest.fixture
def embedded(monkeypatch):
    """Settings without addresses, as of an embedded installation that is not running."""
    monkeypatch.delenv("KOTRAIN_DATABASE_URL", raising=False)
    monkeypatch.delenv("KOTRAIN_BROKER_URL", raising=False)
