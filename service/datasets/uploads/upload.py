"""Files on their way in: written piece by piece, counted and hashed, and gone again unless they are kept."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from service.errors import TooLarge, Unavailable

DEAD_SECONDS = 86_400.0
"""A folder of an upload that is older belongs to a process that died."""


class Arrival:
    """An upload into a folder of its own, from where it can be renamed to its place."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.path = folder / "upload"
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._digest = hashlib.sha256()
        self._file = self.path.open("wb")

    def write(self, piece: bytes) -> None:
        """Take a piece. Raises TooLarge."""
        refuse_large(self.size_bytes + len(piece), self._most_bytes)
        with disk(self.folder):
            self._file.write(piece)
        self._digest.update(piece)
        self.size_bytes += len(piece)

    def finish(self) -> None:
        """All pieces are there."""
        with disk(self.folder):
            self._file.close()

    @property
    def sha256(self) -> str:
        """Hash of what was written."""
        return self._digest.hexdigest()

    def remove(self) -> None:
        """Leave nothing behind; what was renamed stays."""
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def refuse_large(size_bytes: int, most_bytes: int) -> None:
    """Raise TooLarge for a file of more than `most_bytes`."""
    if size_bytes > most_bytes:
        raise TooLarge(f"the file is larger than the limit of {most_bytes:,} bytes (KOTRAIN_MAX_UPLOAD_BYTES)")


def arrive(data_dir: Path, most_bytes: int) -> Arrival:
    """A new upload; what uploads left that died long ago is removed first."""
    with disk(data_dir):
        place = arrivals(data_dir)
        for folder in place.iterdir():
            with suppress(FileNotFoundError):  # another upload is done meanwhile
                if time.time() - folder.stat().st_mtime > DEAD_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
        folder = place / uuid4().hex
        folder.mkdir()
        return Arrival(folder, most_bytes)


def arrivals(data_dir: Path) -> Path:
    """The folder of what comes and goes, on the disk of the data sets, so that renaming is all it takes."""
    place = data_dir / "own" / ".arriving"
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """What the disk refuses becomes an answer: it is full, or not ours to write to."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot write to the data folder: {error.strerror} ({folder})") from error
