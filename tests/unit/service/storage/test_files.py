"""The store of files, in a folder and in one of fsspec's other places."""

import errno
import hashlib
from uuid import uuid4

import pytest

from service.storage.files import Absent, Damaged, Store, digest

NAME = "jobs/a/1/5.pt"
CONTENTS = b"weights"
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture(params=["folder", "elsewhere"])
def stored(request, tmp_path):
    url = str(tmp_path / "files") if request.param == "folder" else f"memory://{uuid4()}"
    return Store(url, tmp_path / "scratch")


def put(stored, name=NAME, contents=CONTENTS):
    stored.place(name).write_bytes(contents)
    stored.put(name)


def test_put_and_get(stored):
    put(stored)
    path = stored.get(NAME, len(CONTENTS), SHA256)
    assert (path.read_bytes(), digest(path)) == (CONTENTS, SHA256)
    assert list(stored.names()) == [(NAME, len(CONTENTS))]
    stored.forget(path)
    assert stored.get(NAME, len(CONTENTS), SHA256).read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("size_bytes", "sha256", "said"), [(8, SHA256, "has 7 bytes, expected 8"), (7, "0" * 64, "does not match")]
)
def test_damage_is_reported(stored, size_bytes, sha256, said):
    put(stored)
    with pytest.raises(Damaged, match=said):
        stored.get(NAME, size_bytes, sha256)


def test_missing_file_is_not_damaged(stored):
    put(stored, "jobs/a/1/6.pt")
    with pytest.raises(Absent, match=f"{NAME} is missing"):
        stored.get(NAME, len(CONTENTS), SHA256)


def test_unreadable_file_is_absent(tmp_path, monkeypatch):
    """As where a network's disk or its ticket is gone for a while; here a folder has the file's name."""
    stored = Store(str(tmp_path), tmp_path / "scratch")
    stored.place(NAME).mkdir()
    size = (tmp_path / NAME).stat().st_size
    with pytest.raises(IsADirectoryError):
        stored.get(NAME, size, SHA256)
    monkeypatch.setattr("service.storage.files.UNREADABLE", {errno.EISDIR})
    with pytest.raises(Absent, match="cannot be read: Is a directory"):
        stored.get(NAME, size, SHA256)


def test_removing_a_missing_file_is_no_error(stored):
    put(stored)
    put(stored, "jobs/a/2/6.pt")
    stored.remove([NAME, NAME, "jobs/b/1/1.pt"])
    assert [name for name, _ in stored.names()] == ["jobs/a/2/6.pt"]


def test_empty_folders_are_removed_with_their_last_file(tmp_path):
    stored = Store(str(tmp_path), tmp_path / "scratch")
    put(stored)
    put(stored, "jobs/b/1/1.pt")
    stored.remove([NAME])
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["b"]


def test_no_local_copies_are_left_of_a_remote_store(tmp_path):
    stored = Store(f"memory://{uuid4()}", tmp_path)
    put(stored)
    assert not stored.path(NAME).exists()
    first, second = (stored.get(NAME, len(CONTENTS), SHA256, reader) for reader in "12")
    stored.forget(first)
    assert second.read_bytes() == CONTENTS  # each reader has a copy of its own
    stored.forget(second)
    with pytest.raises(Damaged):
        stored.get(NAME, len(CONTENTS), "0" * 64)
    with pytest.raises(Absent):
        stored.get("jobs/b/1/1.pt", len(CONTENTS), SHA256)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_unknown_protocol_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        Store("nonsense://bucket", tmp_path)
