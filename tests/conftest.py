"""Fixtures for every test: folders that the embedded servers can use, and one pair of servers for the session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import Embedded


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Short and enterable, which pytest's own is not: as root the servers run as `nobody`."""
    folder = tempfile.TemporaryDirectory(prefix="kotrain-test-")
    Path(folder.name).chmod(0o711)
    return folder


@pytest.fixture
def home() -> Iterator[Path]:
    """A place for a KOTRAIN_HOME that does not exist yet."""
    with _folder() as folder:
        yield Path(folder, "home")


@pytest.fixture(scope="session")
def servers() -> Iterator[Embedded]:
    """PostgreSQL (`.database_url`, an empty database) and Valkey (`.broker_url`), shared by the whole session."""
    with _folder() as folder, Embedded(Path(folder, "home"), fast=True) as embedded:
        yield embedded
