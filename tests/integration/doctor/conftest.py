"""Fixtures of these tests."""

import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home that is there and empty."""
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("KOTRAIN_HOME", str(place))
    return place


@pytest.fixture
def embedded(monkeypatch):
    """An installation without addresses; nothing runs from it."""
    monkeypatch.delenv("KOTRAIN_DATABASE_URL", raising=False)
    monkeypatch.delenv("KOTRAIN_BROKER_URL", raising=False)
