"""The store of files: a folder, or anything fsspec reaches. What is in it counts only through a row in Postgres."""

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
"""What the operating system says of one file in a folder; another file may be well."""


class Damaged(KotrainError):
    """A stored file is not what its row says."""


class Absent(KotrainError):
    """A stored file is not there, or not for now: nothing removes a file before its row, but a disk may be away."""


class Store:
    """Files by their names, which are relative paths with forward slashes.

    Args:
        url: a folder, or an fsspec URL such as `s3://bucket/kotrain`; the package for it has to be installed (s3fs).
        scratch: a folder on this machine for files on their way to and from a store elsewhere.

    Raises:
        ValueError: fsspec has no such protocol.
        ImportError: the package for the protocol is not installed; the message names it.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self.url = url
        self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._scratch = scratch

    def path(self, name: str) -> Path:
        """Where on this machine a file of this name lies while it is read or written, whether it is there or not."""
        return Path(self._root if self._is_local else self._scratch, name)

    def place(self, name: str) -> Path:
        """`path(name)` in a folder that is there, to write to; `put` then stores the file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, progress: Callback = DEFAULT_CALLBACK) -> None:
        """Store the file that was written to `path(name)`."""
        if not self._is_local:
            path = self.path(name)
            self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), self._at(name), callback=progress)
            path.unlink()

    def get(
        self, name: str, size_bytes: int, sha256: str, reader: str = "", progress: Callback = DEFAULT_CALLBACK
    ) -> Path:
        """A path on this machine to a stored file that is what its row says; `forget` it after use.

        A file from elsewhere is copied to a path of its own for each `reader`.

        Raises:
            Damaged: it is not.
            Absent: it is not there, or cannot be read now.
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
        """Remove a copy, on this machine, of a file that lies elsewhere; one that cannot be is what retention finds."""
        if not self._is_local:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("copy %s not removed: %s", path, error)

    def open(self, name: str) -> IO[bytes]:
        """A stored file to read as it is, unchecked. Raises FileNotFoundError."""
        file: IO[bytes] = self._files.open(self._at(name), "rb")
        return file

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error. Folders that this empties go too."""
        for name in names:
            try:
                self._files.rm_file(self._at(name))
            except FileNotFoundError:
                continue
            if self._is_local:
                _remove_empty(Path(self._root), Path(self._root, name).parent)

    def names(self) -> Iterator[tuple[str, int]]:
        """All files, by name and size in bytes."""
        self._files.invalidate_cache()  # an hour may lie between two looks
        if not self._files.exists(self._root):
            return
        for path, about in self._files.find(self._root, detail=True).items():
            yield path.removeprefix(self._root).lstrip("/"), int(about["size"])

    def modified(self, name: str) -> float:
        """When a file was written last, in seconds since 1970 by the store's clock. Raises FileNotFoundError."""
        return float(self._files.modified(self._at(name)).timestamp())

    def local_copies(self) -> Store | None:
        """The files on this machine that are on their way to or from a store elsewhere; None for a local one."""
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
            return  # somebody else's file is in it, or it is gone
        folder = folder.parent


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of this process's settings."""
    wanted = settings()
    return Store(wanted.files or str(wanted.home / "files"), wanted.home / "scratch")


def remove_after_commit(session: Session, names: Iterable[str]) -> None:
    """Remove files from the store once the transaction that deletes their rows has committed."""
    for name in names:
        call_after_commit(session, partial(_remover().put, name))


@lru_cache(maxsize=1)
def _remover() -> SimpleQueue[str]:
    """Queue of a thread that removes files, so that a store that hangs does not delay heartbeats."""
    names: SimpleQueue[str] = SimpleQueue()

    def remove() -> None:
        while True:
            name = names.get()
            try:
                store().remove([name])
            except Exception as error:  # it is garbage now, which `kotrain gc` finds
                log.warning("file %s not removed: %s", name, error)

    threading.Thread(target=remove, name="remover", daemon=True).start()
    return names
