"""Untrusted zip archives: declared sizes are checked first, and unpacked bytes counted while reading."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from service.datasets.names import is_system_file
from service.datasets.uploads.records import unfit
from service.specs.text import counted

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY_BYTES = 2**27
"""Maximum size of the central directory, which is read at once; 1 million members with names of 60 bytes take 10**8."""
MAX_RATIO, RATIO_FROM_BYTES = 200, 10 * 2**20
"""Compression ratio above which members of at least `RATIO_FROM_BYTES` are refused; real data stays far below."""
_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56
_END64_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_MAX_COMMENT = 65_535
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
"""Extra field with the name in UTF-8, and the CRC-32 of the name in the header."""
_WINDOWS = (0, 10, 11)
"""`create_system` of archivers that may separate folders by a backslash: FAT, NTFS, VFAT."""
_DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""Exceptions that zipfile raises for invalid archives: OSError for negative offsets, NotImplementedError for unknown
compression methods."""


class Archive:
    """An open zip archive.

    `members` are its files, each once, without folders and files that operating systems add. Their `filename` is a
    decoded relative path. `warnings` are sentences about names that had to be guessed.

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
        self.warnings = _decode_names(everything)
        for member in everything:
            _refuse_harm(member)
        files = (member for member in everything if not member.is_dir())
        self.members = _each_once(
            [member for member in files if not any(map(is_system_file, member.filename.split("/")))]
        )
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


def _decode_names(members: Sequence[ZipInfo]) -> list[str]:
    """Set the names of all members. The result is a warning about names whose encoding is not known.

    Names that state none are UTF-8 if all of them are valid in it: short names of another encoding may be by chance.
    """
    raw = [_undecoded(member) for member in members]
    are_utf8 = all(name is None or _is_utf8(name) for name in raw)
    guessed = []
    for member, bytes_ in zip(members, raw, strict=True):
        name = bytes_.decode() if bytes_ is not None and are_utf8 else _marked_name(member)
        if member.create_system in _WINDOWS and "/" not in name:
            name = name.replace("\\", "/")
        folder = "/" if name.endswith("/") else ""
        member.filename = f"{PurePosixPath(name)}{folder}"
        if bytes_ is not None and not (are_utf8 or bytes_.isascii()):
            guessed.append(member.filename)
    if not guessed:
        return []
    return [
        f"The archive does not state the encoding of its file names; {counted(len(guessed), 'name')} read as code page "
        f"437, such as '{guessed[0]}'. If that is wrong, pack the archive again with names in UTF-8."
    ]


def _undecoded(member: ZipInfo) -> bytes | None:
    """The name of a member that does not state its encoding; None if it does. zipfile reads it as code page 437."""
    if member.flag_bits & _UTF8_FLAG:
        return None
    raw = member.orig_filename.partition("\0")[0].encode("cp437")
    return None if _unicode_path(member.extra, raw) else raw


def _marked_name(member: ZipInfo) -> str:
    """The name by the extra field for it, or as zipfile reads it."""
    if member.flag_bits & _UTF8_FLAG:
        return member.filename
    path = _unicode_path(member.extra, member.orig_filename.partition("\0")[0].encode("cp437"))
    return path.decode() if path and _is_utf8(path) else member.filename


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unicode_path(extra: bytes, raw: bytes) -> bytes | None:
    """The name in the extra field for it; None without one, or if the name has been changed since."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(content) > 5 and content[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return content[5:]
    return None


def _each_once(members: Sequence[ZipInfo]) -> list[ZipInfo]:
    """The members without repetitions. Raises Invalid for two different files of one name."""
    first: dict[str, ZipInfo] = {}
    for member in members:
        known = first.setdefault(member.filename, member)
        if (known.CRC, known.file_size) != (member.CRC, member.file_size):
            raise unfit(f"'{member.filename}' is in the archive twice, with different contents; pack each file once")
    return list(first.values())


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
