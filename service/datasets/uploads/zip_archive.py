"""Zip archives from strangers: what they declare is checked before, and what they give counted while it is read."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from service.datasets.uploads.records import unfit

MOST_MEMBERS = 1_000_000
MOST_DIRECTORY_BYTES = 2**27
"""Of the table of contents, which is read as a whole; a million members with names of 60 letters take 10**8."""
MOST_RATIO, RATIO_FROM_BYTES = 200, 10 * 2**20
"""A larger member that unpacks to more than so many times its size is refused: nothing worth training on does."""
_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56
_END64_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_LONGEST_COMMENT = 65_535
_BY_THEMSELVES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""What operating systems add."""
_DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What zipfile raises on its way through numbers and names that are not true: OSError for places before the start,
NotImplementedError for kinds of packing that it does not know."""


class Archive:
    """An open zip archive; `members` are its files, without folders and what operating systems add.

    Args:
        path: where it lies.
        most_bytes: what all that is read from it may be, unpacked.
        what: what to call it in errors.

    Raises:
        Invalid: it is damaged, or could do harm. So do all methods.
    """

    def __init__(self, path: Path, most_bytes: int, what: str) -> None:
        self._most_bytes, self._what = most_bytes, what
        self._read_bytes = 0
        _refuse_large_directory(path, what)
        try:
            self._zip = ZipFile(path)
        except _DAMAGE as error:
            raise unfit(f"the file is not a valid {what}, or is incomplete ({error})") from error
        everything = self._zip.infolist()
        if len(everything) > MOST_MEMBERS:
            raise unfit(f"the archive has {len(everything):,} members; at most {MOST_MEMBERS:,} are allowed")
        self.members = [member for member in everything if not member.is_dir() and not _is_by_itself(member.filename)]
        for member in everything:
            _refuse_harm(member)
        declared = sum(member.file_size for member in self.members)
        if declared > most_bytes:
            raise self._too_large()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    @contextmanager
    def open(self, member: ZipInfo) -> Iterator[IO[bytes]]:
        """A member to read from; what is read has to be told to `count`."""
        try:
            with self._zip.open(member) as file:
                yield file
        except _DAMAGE as error:
            raise unfit(f"'{member.filename}' in the archive is damaged ({error})") from error

    def count(self, size_bytes: int) -> None:
        """Refuse what has become more than is allowed."""
        self._read_bytes += size_bytes
        if self._read_bytes > self._most_bytes:
            raise self._too_large()

    def read(self, member: ZipInfo) -> bytes:
        """The whole of a member."""
        with self.open(member) as file:
            content = file.read()
        self.count(len(content))
        return content

    def _too_large(self) -> Exception:
        return unfit(
            f"the {self._what} unpacks to more than {self._most_bytes:,} bytes, which is the limit "
            "(KOTRAIN_MAX_DATASET_BYTES)"
        )


def _is_by_itself(name: str) -> bool:
    return any(part.startswith(".") or part in _BY_THEMSELVES for part in name.split("/") if part not in (".", ".."))


def _refuse_harm(member: ZipInfo) -> None:
    """Names that lead elsewhere, links, secrets, and members that unpack out of all proportion."""
    name = member.filename
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise unfit(f"'{name}' in the archive leads out of it: pack the folder itself, with relative names")
    mode = member.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
        raise unfit(f"'{name}' in the archive is a link or a device: pack the files themselves")
    if member.flag_bits & 1:
        raise unfit(f"'{name}' in the archive is encrypted: pack it without a password")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise unfit(f"'{name}' in the archive is packed by another method than deflate")
    if member.file_size > RATIO_FROM_BYTES and member.file_size > MOST_RATIO * member.compress_size:
        raise unfit(
            f"'{name}' in the archive unpacks to {member.file_size:,} bytes from {member.compress_size:,}: more than "
            f"{MOST_RATIO} times as much is refused"
        )


def _refuse_large_directory(path: Path, what: str) -> None:
    """Look at the declared size of the table of contents: Python's zipfile reads it whole, into 600 bytes an entry."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + _END_BYTES:
            raise unfit(f"the file is not a valid {what}, or is incomplete")
        directory = int.from_bytes(tail[at + 12 : at + 16], "little")
        locator = tail[max(0, at - _LOCATOR_BYTES) : at]
        if locator.startswith(_END64_LOCATOR):
            start = size - len(tail) + at - _LOCATOR_BYTES - _END64_BYTES  # where zipfile reads, whatever is told
            file.seek(max(0, start))
            record = file.read(_END64_BYTES)
            if start != int.from_bytes(locator[8:16], "little") or not record.startswith(_END64):
                raise unfit(f"the {what} is damaged: its table of contents is not where it says")
            directory = int.from_bytes(record[40:48], "little")
    if directory > MOST_DIRECTORY_BYTES:
        raise unfit(f"the archive's table of contents has {directory:,} bytes; it has too many members")
