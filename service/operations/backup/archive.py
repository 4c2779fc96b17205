"""The file of a backup: a tar of its parts, with a manifest of them at its end.

The manifest comes last, as the directory of a zip file does: whatever was cut off or whose headers were damaged has
none, and is no backup. Any tar program can unpack one; `pg_restore` reads its `database.dump`.
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
"""Before the names of what lies in the store."""

_MANIFEST, _SEAL = "manifest.json", "manifest.sha256"
_MOST_MANIFEST_BYTES = 2**28
_BLOCK_BYTES = 2**20


class BackupError(Exception):
    """A backup cannot be made or used; the message is one line that says what to do."""


class Part(BaseModel):
    """One file in a backup."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a backup holds, and what it takes to use it."""

    format: Literal[1] = 1
    kotrain: str
    """Version that made it."""
    created_at: datetime
    schema_number: int
    oldest_code: int
    """`service.storage.schema_version.Schema` of the database."""
    postgres: int
    dumped_with: int
    """Major versions of the server and of pg_dump."""
    database_bytes: int
    """Size of the database; the dump is smaller."""
    jobs: int
    parts: list[Part]
    left_out: list[str]
    """Files of the store that were gone, or damaged, by the time they were to be copied."""

    @property
    def files(self) -> list[Part]:
        """The parts that go back to the store; their names there follow on `FILES`."""
        return [part for part in self.parts if part.name.startswith(FILES)]

    @property
    def size_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.size_bytes for part in self.parts)


class Writer:
    """Writes a backup into an open file, part by part; sizes need not be known before."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.parts: list[Part] = []

    def add(self, name: str, source: IO[bytes], sha256: str | None = None) -> bool:
        """Append all of `source`; False, and nothing, where it cannot be read or is not what it should be."""
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
        self._append(_SEAL, io.BytesIO(_seal_of(text)))
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
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))  # as long as before, now with the size
        self._file.seek(end)
        return Part(name=name, size_bytes=info.size, sha256=digest.hexdigest())


class _Unreadable(Exception):
    """The source of a part, not the backup, made trouble."""


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except OSError as error:  # a file that lies elsewhere is read piece by piece, and may be replaced meanwhile
        raise _Unreadable from error


class Reader:
    """`with Reader(path) as backup`: a backup with its manifest; nothing in it is trusted before `verify()`.

    Raises `BackupError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 (closed by our own __exit__)
        except OSError as error:
            raise BackupError(f"cannot read {path} ({error.strerror}): name the file of a backup") from error
        except tarfile.TarError as error:
            raise BackupError(
                f"{path} is no backup of kotrain, or damaged: use one that `kotrain backup` made"
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
        """Refuse the backup unless all parts are there, whole, and nothing else is."""
        named = {part.name for part in self.manifest.parts}
        if DATABASE not in named or named != self._members.keys() - {_MANIFEST, _SEAL}:
            raise self._damaged("its parts are not those that its manifest names")
        for part in self.manifest.parts:
            with self.open(part.name) as source:
                whole = self._members[part.name].size == part.size_bytes and _digest(source) == part.sha256
            if not whole:
                raise self._damaged(f"{part.name} has changed")

    def open(self, name: str) -> IO[bytes]:
        """Read a part from its start."""
        file = self._tar.extractfile(self._members[name])
        assert file is not None  # only regular files are among the members
        return file

    def _index(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        try:
            for member in self._tar:
                if member.type != tarfile.REGTYPE or member.name in members or not _is_plain(member.name):
                    raise BackupError(
                        f"{self._path} is not used: kotrain makes no backup with a part like {member.name!r}"
                    )
                members[member.name] = member
        except (tarfile.TarError, EOFError) as error:
            raise self._damaged("it is not complete") from error
        return members

    def _read_manifest(self) -> Manifest:
        texts = dict(self._small_parts())
        if texts.keys() != {_MANIFEST, _SEAL}:
            raise self._damaged("it has no manifest, which is its last part")
        if texts[_SEAL] != _seal_of(texts[_MANIFEST]):
            raise self._damaged("its manifest has changed")
        try:
            return Manifest.model_validate_json(texts[_MANIFEST])
        except ValidationError as error:
            raise BackupError(f"{self._path} is of another version of kotrain: restore it with that one") from error

    def _small_parts(self) -> Iterator[tuple[str, bytes]]:
        for name in (_MANIFEST, _SEAL):
            if name in self._members and self._members[name].size <= _MOST_MANIFEST_BYTES:
                with self.open(name) as source:
                    yield name, source.read()

    def _damaged(self, what: str) -> BackupError:
        return BackupError(f"{self._path} is damaged ({what}): use another backup")


def _is_plain(name: str) -> bool:
    """Whether it is a relative path in its plainest form, which leads out of no folder."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _seal_of(manifest: bytes) -> bytes:
    """As `sha256sum` prints it, so that it can check it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n".encode()


def _digest(source: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
