"""Uploads in progress: written in chunks, counted and hashed, and removed unless they become a data set."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from service.errors import StorageFull, TooLarge, Unavailable
from service.specs.quantities import size

UNLOCKED_SECONDS = 60.0
FILE = "upload"
"""Name of the received file in its folder."""
STREAMING = frozenset({"POST /v1/datasets"})
"""Routes whose bodies are not read into memory before the request is handled."""


class Arrival:
    """An upload into a temporary folder, in which the data set is built before it is renamed to its final place.

    The folder is locked while the upload is in progress, so that `remove_leftovers` leaves it alone.
    """

    def __init__(self, folder: Path, max_bytes: int, min_free_bytes: int = 0) -> None:
        self.folder = folder
        self._lock: int | None = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = folder / FILE
        self.size_bytes = 0
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes
        self._digest = hashlib.sha256()
        self._file = self.path.open("wb")

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises TooLarge, StorageFull."""
        refuse_large(self.size_bytes + len(piece), self._max_bytes)
        with disk(self.folder):
            refuse_full(self.folder, len(piece), self._min_free_bytes)
            self._file.write(piece)
        self._digest.update(piece)
        self.size_bytes += len(piece)

    def finish(self) -> None:
        """Close the file after the last piece."""
        with disk(self.folder):
            self._file.close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far."""
        return self._digest.hexdigest()

    def remove(self) -> None:
        """Delete the temporary folder."""
        with suppress(OSError):  # on a full disk, what is buffered cannot be written
            self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def refuse_large(size_bytes: int, max_bytes: int) -> None:
    """Raise TooLarge for a file of more than `max_bytes`."""
    if size_bytes > max_bytes:
        raise TooLarge(f"the file is larger than the limit of {max_bytes:,} bytes (KOTRAIN_MAX_UPLOAD_BYTES)")


def refuse_full(folder: Path, size_bytes: int, min_free_bytes: int) -> None:
    """Raise StorageFull if the disk of the folder would have less than `min_free_bytes` left."""
    free = shutil.disk_usage(folder).free
    if free - size_bytes < min_free_bytes:
        raise StorageFull(
            f"the disk of the data folder has {size(free)} free; the upload needs {size(size_bytes)}, and "
            f"{size(min_free_bytes)} must stay free (KOTRAIN_MIN_FREE_BYTES): delete data sets or old files first"
        )


def arrive(data_dir: Path, max_bytes: int, announced_bytes: int = 0, min_free_bytes: int = 0) -> Arrival:
    """Start an upload, of `announced_bytes` if not 0, after removing folders that crashed uploads left behind."""
    with disk(data_dir):
        remove_leftovers(data_dir)
        place = arrivals(data_dir)
        refuse_full(place, announced_bytes, min_free_bytes)
        folder = place / uuid4().hex
        folder.mkdir()
        return Arrival(folder, max_bytes, min_free_bytes)


def remove_leftovers(data_dir: Path) -> None:
    """Delete the folders of uploads and removals that ended in a crash: those that no process has locked.

    Called at the start of the API and of each upload. A folder of less than a minute may not be locked yet.
    """
    place = data_dir / "own" / ".arriving"
    for folder in place.iterdir() if place.is_dir() else ():
        with suppress(OSError):  # removed meanwhile, or locked
            if time.time() - folder.stat().st_mtime < UNLOCKED_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def arrivals(data_dir: Path) -> Path:
    """Folder of temporary files, on the file system of the data sets, so that a rename moves them."""
    place = data_dir / "own" / ".arriving"
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turn errors of the file system, such as a full disk, into Unavailable."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot write to the data folder: {error.strerror} ({folder})") from error
