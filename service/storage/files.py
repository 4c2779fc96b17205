"""The file store: a folder, or any file system of fsspec. A file is valid only through a row in PostgreSQL."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.implementations.local import LocalFileSystem
from sqlalchemy.orm import Session

from service.config import settings
from service.errors import KotrainError
from service.storage.database import call_after_commit

log = logging.getLogger(__name__)

UNREADABLE = {errno.EIO, errno.EACCES, errno.EPERM}
"""Errors that concern a single file; other files of the folder may be readable."""


class Damaged(KotrainError):
    """A stored file does not match its row."""


class Absent(KotrainError):
    """A stored file is missing or cannot be read now. Rows are deleted before files, but a disk may be unmounted."""


class Store:
    """Files by name; names are relative paths with forward slashes.

    Args:
        url: a folder, or an fsspec URL such as `s3://bucket/kotrain`, whose package (s3fs) must be installed.
        scratch: a local folder for copies of files in a remote store.

    Raises:
        ValueError: fsspec does not know the protocol.
        ImportError: the package for the protocol is not installed; the message names it.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self.url = url
        self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._scratch = scratch

    def path(self, name: str) -> Path:
        """The local path of a file while it is read or written; the file need not exist."""
        return Path(self._root if self._is_local else self._scratch, name)

    def place(self, name: str) -> Path:
        """`path(name)` for writing: its folder is created. `put` then stores the file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, progress: Callback = DEFAULT_CALLBACK) -> None:
        """Store the file at `path(name)`."""
        if not self._is_local:
            path = self.path(name)
            self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), self._at(name), callback=progress)
            path.unlink()

    def get(
        self, name: str, size_bytes: int, sha256: str, reader: str = "", progress: Callback = DEFAULT_CALLBACK
    ) -> Path:
        """The local path of a stored file that matches its row; call `forget` after use.

        A remote file is copied, to a separate path for each `reader`.

        Raises:
            Damaged: it does not match.
            Absent: it is missing, or cannot be read now.
        """
        path = self.path(name) if self._is_local else self.place(f"{name}.for-{reader}")
        try:
            if not self._is_local:
                self._files.get_file(self._at(name), str(path), callback=progress)
            self._check(name, path, size_bytes, sha256)
        except BaseException as error:
            self.forget(path)
            if isinstance(error, FileNotFoundError):
                raise Absent(f"{name} is missing") from None
            if self._is_local and isinstance(error, OSError) and error.errno in UNREADABLE:
                raise Absent(f"{name} cannot be read: {error.strerror}") from None
            raise
        return path

    @staticmethod
    def _check(name: str, path: Path, size_bytes: int, sha256: str) -> None:
        size = path.stat().st_size
        if size != size_bytes:
            raise Damaged(f"{name} has {size} bytes, expected {size_bytes}")
        if digest(path) != sha256:
            raise Damaged(f"{name} does not match its SHA-256")

    def forget(self, path: Path) -> None:
        """Remove the local copy of a remote file. If that fails, retention removes it later."""
        if not self._is_local:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("copy %s not removed: %s", path, error)

    def open(self, name: str) -> IO[bytes]:
        """Open a stored file without checking it. Raises FileNotFoundError."""
        file: IO[bytes] = self._files.open(self._at(name), "rb")
        return file

    def remove(self, names: Iterable[str]) -> None:
        """Remove files and the folders that become empty. Missing files are ignored."""
        for name in names:
            try:
                self._files.rm_file(self._at(name))
            except FileNotFoundError:
                continue
            if self._is_local:
                _remove_empty(Path(self._root), Path(self._root, name).parent)

    def names(self) -> Iterator[tuple[str, int]]:
        """All files, as (name, size in bytes)."""
        self._files.invalidate_cache()  # the last call may be an hour ago
        if not self._files.exists(self._root):
            return
        for path, info in self._files.find(self._root, detail=True).items():
            yield path.removeprefix(self._root).lstrip("/"), int(info["size"])

    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970 by the store's clock. Raises FileNotFoundError."""
        return float(self._files.modified(self._at(name)).timestamp())

    def local_copies(self) -> Store | None:
        """The local copies of a remote store's files, as a store; None for a local store."""
        return None if self._is_local else Store(str(self._scratch), self._scratch)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_empty(root: Path, folder: Path) -> None:
    while folder != root:
        try:
            os.rmdir(folder)
        except OSError:
            return  # not empty, or removed already
        folder = folder.parent


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of the process's settings."""
    return Store(settings().files or str(settings().home / "files"), settings().home / "scratch")


def remove_after_commit(session: Session, names: Iterable[str]) -> None:
    """Remove files from the store once the transaction that deletes their rows has committed."""
    for name in names:
        call_after_commit(session, partial(_remover().put, name))


@lru_cache(maxsize=1)
def _remover() -> SimpleQueue[str]:
    """The queue of a thread that removes files, so that a store that hangs does not delay heartbeats."""
    names: SimpleQueue[str] = SimpleQueue()

    def remove() -> None:
        while True:
            name = names.get()
            try:
                store().remove([name])
            except Exception as error:  # `kotrain gc` removes it later
                log.warning("file %s not removed: %s", name, error)

    threading.Thread(target=remove, name="remover", daemon=True).start()
    return names
