"""The store of files, in a folder and in a remote file system of fsspec."""

import errno
import hashlib
from uuid import uuid4

import pytest

from service.storage.files import Absent, Damaged, Store, digest

NAME = "jobs/a/1/5.pt"
CONTENTS = b"weights"
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture(params=["folder", "remote"])
def store(request, tmp_path):
    url = str(tmp_path / "files") if request.param == "folder" else f"memory://{uuid4()}"
    return Store(url, tmp_path / "scratch")


def put(store, name=NAME, contents=CONTENTS):
    store.place(name).write_bytes(contents)
    store.put(name)


def test_put_and_get(store):
    put(store)
    path = store.get(NAME, len(CONTENTS), SHA256)
    assert (path.read_bytes(), digest(path)) == (CONTENTS, SHA256)
    assert list(store.names()) == [(NAME, len(CONTENTS))]
    store.forget(path)
    assert store.get(NAME, len(CONTENTS), SHA256).read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("size_bytes", "sha256", "message"), [(8, SHA256, "has 7 bytes, expected 8"), (7, "0" * 64, "does not match")]
)
def test_damaged_file_raises(store, size_bytes, sha256, message):
    put(store)
    with pytest.raises(Damaged, match=message):
        store.get(NAME, size_bytes, sha256)


def test_missing_file_is_not_damaged(store):
    put(store, "jobs/a/1/6.pt")
    with pytest.raises(Absent, match=f"{NAME} is missing"):
        store.get(NAME, len(CONTENTS), SHA256)


def test_unreadable_file_is_absent(tmp_path, monkeypatch):
    """As when a network disk or its ticket is unavailable for a while; here a folder has the file's name."""
    store = Store(str(tmp_path), tmp_path / "scratch")
    store.place(NAME).mkdir()
    size = (tmp_path / NAME).stat().st_size
    with pytest.raises(IsADirectoryError):
        store.get(NAME, size, SHA256)
    monkeypatch.setattr("service.storage.files.UNREADABLE", {errno.EISDIR})
    with pytest.raises(Absent, match="cannot be read: Is a directory"):
        store.get(NAME, size, SHA256)


def test_remove_ignores_missing_file(store):
    put(store)
    put(store, "jobs/a/2/6.pt")
    store.remove([NAME, NAME, "jobs/b/1/1.pt"])
    assert [name for name, _ in store.names()] == ["jobs/a/2/6.pt"]


def test_removes_empty_folder_with_its_last_file(tmp_path):
    store = Store(str(tmp_path), tmp_path / "scratch")
    put(store)
    put(store, "jobs/b/1/1.pt")
    store.remove([NAME])
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["b"]


def test_remote_store_leaves_no_local_copies(tmp_path):
    store = Store(f"memory://{uuid4()}", tmp_path)
    put(store)
    assert not store.path(NAME).exists()
    first, second = (store.get(NAME, len(CONTENTS), SHA256, reader) for reader in "12")
    store.forget(first)
    assert second.read_bytes() == CONTENTS  # each reader has its own copy
    store.forget(second)
    with pytest.raises(Damaged):
        store.get(NAME, len(CONTENTS), "0" * 64)
    with pytest.raises(Absent):
        store.get("jobs/b/1/1.pt", len(CONTENTS), SHA256)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rejects_unknown_protocol(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        Store("nonsense://bucket", tmp_path)
