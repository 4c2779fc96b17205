"""Untrusted zip archives: declared sizes are checked first, and unpacked bytes counted while reading."""

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

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY_BYTES = 2**27
"""Maximum size of the central directory, which is read at once; 1 million members with names of 60 bytes take 10**8."""
MAX_RATIO, RATIO_FROM_BYTES = 200, 10 * 2**20
"""Compression ratio above which members of at least `RATIO_FROM_BYTES` are refused; real data stays far below."""
_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56
_END64_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_MAX_COMMENT = 65_535
_SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""Files that operating systems add."""
_DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""Exceptions that zipfile raises for invalid archives: OSError for negative offsets, NotImplementedError for unknown
compression methods."""


class Archive:
    """An open zip archive; `members` are its files, without folders and files that operating systems add.

    Args:
        path: the file.
        max_bytes: maximum total size of the members, unpacked.
        noun: name of the archive in error messages, such as "npz file".

    Raises:
        Invalid: the archive is damaged or harmful; raised by all methods.
    """

    def __init__(self, path: Path, max_bytes: int, noun: str) -> None:
        self._max_bytes, self._noun = max_bytes, noun
        self._read_bytes = 0
        _refuse_large_directory(path, noun)
        try:
            self._zip = ZipFile(path)
        except _DAMAGE as error:
            raise unfit(f"the file is not a valid {noun}, or is incomplete ({error})") from error
        everything = self._zip.infolist()
        if len(everything) > MAX_MEMBERS:
            raise unfit(f"the archive has {len(everything):,} members; at most {MAX_MEMBERS:,} are allowed")
        self.members = [member for member in everything if not member.is_dir() and not _is_system_file(member.filename)]
        for member in everything:
            _refuse_harm(member)
        declared = sum(member.file_size for member in self.members)
        if declared > max_bytes:
            raise self._too_large()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    @contextmanager
    def open(self, member: ZipInfo) -> Iterator[IO[bytes]]:
        """Open a member for reading; pass the number of bytes read to `count`."""
        try:
            with self._zip.open(member) as file:
                yield file
        except _DAMAGE as error:
            raise unfit(f"'{member.filename}' in the archive is damaged ({error})") from error

    def count(self, size_bytes: int) -> None:
        """Add to the number of bytes read. Raises Invalid above the limit."""
        self._read_bytes += size_bytes
        if self._read_bytes > self._max_bytes:
            raise self._too_large()

    def read(self, member: ZipInfo) -> bytes:
        """The contents of a member."""
        with self.open(member) as file:
            content = file.read()
        self.count(len(content))
        return content

    def _too_large(self) -> Exception:
        return unfit(
            f"the {self._noun} unpacks to more than the limit of {self._max_bytes:,} bytes (KOTRAIN_MAX_DATASET_BYTES)"
        )


def _is_system_file(name: str) -> bool:
    return any(part.startswith(".") or part in _SYSTEM_FILES for part in name.split("/") if part not in (".", ".."))


def _refuse_harm(member: ZipInfo) -> None:
    """Raise Invalid for paths outside the archive, links, encryption and suspicious compression ratios."""
    name = member.filename
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise unfit(f"'{name}' in the archive points outside of it; use relative names without ..")
    mode = member.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
        raise unfit(f"'{name}' in the archive is a link or a device; pack regular files only")
    if member.flag_bits & 1:
        raise unfit(f"'{name}' in the archive is encrypted; pack it without a password")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise unfit(f"'{name}' in the archive has an unsupported compression method; use deflate")
    if member.file_size > RATIO_FROM_BYTES and member.file_size > MAX_RATIO * member.compress_size:
        raise unfit(
            f"'{name}' in the archive unpacks from {member.compress_size:,} to {member.file_size:,} bytes; at most "
            f"{MAX_RATIO} times the compressed size is allowed"
        )


def _refuse_large_directory(path: Path, noun: str) -> None:
    """Check the declared size of the central directory: zipfile reads all of it, using 600 bytes per entry."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT - _LOCATOR_BYTES))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + _END_BYTES:
            raise unfit(f"the file is not a valid {noun}, or is incomplete")
        directory = int.from_bytes(tail[at + 12 : at + 16], "little")
        locator = tail[max(0, at - _LOCATOR_BYTES) : at]
        if locator.startswith(_END64_LOCATOR):
            # Where zipfile reads, regardless of the locator.
            start = size - len(tail) + at - _LOCATOR_BYTES - _END64_BYTES
            file.seek(max(0, start))
            record = file.read(_END64_BYTES)
            if start != int.from_bytes(locator[8:16], "little") or not record.startswith(_END64):
                raise unfit(f"the {noun} is damaged: its central directory is not at the recorded offset")
            directory = int.from_bytes(record[40:48], "little")
    if directory > MAX_DIRECTORY_BYTES:
        raise unfit(
            f"the archive's central directory has {directory:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are allowed"
        )
