"""The backup file: a tar archive of parts, with a manifest at the end.

The manifest comes last, like the directory of a zip file, so that a truncated file has none and is rejected. Any tar
program can unpack a backup; `pg_restore` reads its `database.dump`.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Literal

from pydantic import BaseModel, ValidationError

DATABASE = "database.dump"
FILES = "files/"
"""Prefix of the names of files of the store."""

_MANIFEST, _CHECKSUM = "manifest.json", "manifest.sha256"
_MAX_MANIFEST_BYTES = 2**28
_BLOCK_BYTES = 2**20


class BackupError(Exception):
    """A backup cannot be created or used. The message is one line and suggests a remedy."""


class Part(BaseModel):
    """A file in a backup."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """Contents of a backup, and the versions needed to restore it."""

    format: Literal[1] = 1
    kotrain: str
    """Version of kotrain that created the backup."""
    created_at: datetime
    schema_number: int
    oldest_code: int
    """`service.storage.schema_version.Schema` of the database."""
    postgres: int
    dumped_with: int
    """Major versions of the server and of pg_dump."""
    database_bytes: int
    """Size of the database on disk; the dump is smaller."""
    jobs: int
    parts: list[Part]
    left_out: list[str]
    """Files of the store that were missing or damaged when they were to be copied."""

    @property
    def files(self) -> list[Part]:
        """The parts that are files of the store, named `FILES` + name in the store."""
        return [part for part in self.parts if part.name.startswith(FILES)]

    @property
    def size_bytes(self) -> int:
        """Total size of all parts."""
        return sum(part.size_bytes for part in self.parts)


class Writer:
    """Writes a backup to an open file, part by part, without knowing sizes in advance."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.parts: list[Part] = []

    def add(self, name: str, source: IO[bytes], sha256: str | None = None) -> bool:
        """Append `source`. Returns False and appends nothing if it cannot be read or does not match `sha256`."""
        start = self._file.tell()
        try:
            part = self._append(name, source)
        except _Unreadable:
            part = None
        if part is None or sha256 not in (None, part.sha256):
            self._file.seek(start)
            self._file.truncate()
            return False
        self.parts.append(part)
        return True

    def close(self, manifest: Manifest) -> None:
        """Append the manifest and end the tar."""
        text = manifest.model_dump_json(indent=1).encode()
        self._append(_MANIFEST, io.BytesIO(text))
        self._append(_CHECKSUM, io.BytesIO(_checksum_of(text)))
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))

    def _append(self, name: str, source: IO[bytes]) -> Part:
        info, digest, start = tarfile.TarInfo(name), hashlib.sha256(), self._file.tell()
        info.mode, info.mtime = 0o600, int(time.time())
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))
        while block := _read(source):
            digest.update(block)
            info.size += self._file.write(block)
        self._file.write(bytes(-info.size % tarfile.BLOCKSIZE))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))  # same length, now with the size
        self._file.seek(end)
        return Part(name=name, size_bytes=info.size, sha256=digest.hexdigest())


class _Unreadable(Exception):
    """Reading the source of a part failed, as opposed to writing the backup."""


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except OSError as error:  # a remote file is read in pieces and may be replaced meanwhile
        raise _Unreadable from error


class Reader:
    """`with Reader(path) as backup`: opens a backup and reads its manifest. Call `verify()` before using its parts.

    Raises `BackupError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 (closed by our own __exit__)
        except OSError as error:
            raise BackupError(f"cannot read {path} ({error.strerror}): give the path of a backup") from error
        except tarfile.TarError as error:
            raise BackupError(
                f"{path} is not a kotrain backup, or is damaged: use a file created by `kotrain backup`"
            ) from error
        try:
            self._members = self._index()
            self.manifest = self._read_manifest()
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def verify(self) -> None:
        """Raise unless the parts are complete, unchanged, and exactly those of the manifest."""
        named = {part.name for part in self.manifest.parts}
        if DATABASE not in named or named != self._members.keys() - {_MANIFEST, _CHECKSUM}:
            raise self._damaged("its parts differ from its manifest")
        for part in self.manifest.parts:
            with self.open(part.name) as source:
                is_intact = self._members[part.name].size == part.size_bytes and _digest(source) == part.sha256
            if not is_intact:
                raise self._damaged(f"{part.name} has changed")

    def open(self, name: str) -> IO[bytes]:
        """Open a part for reading."""
        file = self._tar.extractfile(self._members[name])
        assert file is not None  # only regular files are among the members
        return file

    def _index(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        try:
            for member in self._tar:
                if member.type != tarfile.REGTYPE or member.name in members or not _is_plain(member.name):
                    raise BackupError(f"{self._path} is not a kotrain backup: unexpected entry {member.name!r}")
                members[member.name] = member
        except (tarfile.TarError, EOFError) as error:
            raise self._damaged("it is incomplete") from error
        return members

    def _read_manifest(self) -> Manifest:
        texts = dict(self._small_parts())
        if texts.keys() != {_MANIFEST, _CHECKSUM}:
            raise self._damaged("its manifest, the last part, is missing")
        if texts[_CHECKSUM] != _checksum_of(texts[_MANIFEST]):
            raise self._damaged("its manifest has changed")
        try:
            return Manifest.model_validate_json(texts[_MANIFEST])
        except ValidationError as error:
            raise BackupError(
                f"{self._path} was created by an incompatible version of kotrain: restore it with that version"
            ) from error

    def _small_parts(self) -> Iterator[tuple[str, bytes]]:
        for name in (_MANIFEST, _CHECKSUM):
            if name in self._members and self._members[name].size <= _MAX_MANIFEST_BYTES:
                with self.open(name) as source:
                    yield name, source.read()

    def _damaged(self, reason: str) -> BackupError:
        return BackupError(f"{self._path} is damaged ({reason}): use another backup")


def _is_plain(name: str) -> bool:
    """Whether a name is a normalized relative path without `..`."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _checksum_of(manifest: bytes) -> bytes:
    """In the format of `sha256sum`, which can verify it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n".encode()


def _digest(source: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
