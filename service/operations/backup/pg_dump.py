"""Runs pg_dump and pg_restore in a version that suits the server, with data passing through pipes.

Passwords are passed in the environment: command lines are visible to all users of the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.config import settings
from service.operations.backup.archive import BackupError
from service.operations.embedded import programs
from service.operations.embedded.process import EmbeddedError

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Program:
    """pg_dump or pg_restore, and its major version."""

    path: Path
    major: int


def find(name: str, min_major: int) -> Program:
    """The oldest `name` of at least this major version, from PATH or the embedded server's wheel.

    The oldest, because a newer pg_restore may use features that an older server lacks. Raises `BackupError`.
    """
    installed = [Program(path, _major(path)) for path in _installed(name)]
    fitting = [program for program in installed if program.major >= min_major]
    if not fitting:
        versions = ", ".join(str(program.major) for program in installed) or "none"
        raise BackupError(
            f"{name} of PostgreSQL {min_major} or newer is required (installed: {versions}): "
            "install the PostgreSQL client programs, or kotrain's extra `embedded`"
        )
    return min(fitting, key=lambda program: program.major)


@contextmanager
def dumping(program: Program, url: str, snapshot: str) -> Iterator[IO[bytes]]:
    """The dump of an exported snapshot, to be read to its end. Raises `BackupError`."""
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
    with _running(program, options, url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout


def load(program: Program, url: str, dump: IO[bytes]) -> None:
    """Restore a dump into an empty database, in one transaction. Raises `BackupError`."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    with _running(program, options, url, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:  # its exit status and output are reported
            shutil.copyfileobj(dump, process.stdin, _BLOCK_BYTES)


@contextmanager
def _running(
    program: Program, options: list[str], url: str, *, stdin: int, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    conninfo, password = _split_password(url)
    command = [str(program.path), *options, "--no-password", f"--dbname={conninfo}"]
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=errors, env=environment) as process,
    ):
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            output = " ".join(errors.read().decode(errors="replace").split())
            raise BackupError(f"{program.path.name} failed: {output.removeprefix(f'{program.path.name}: error: ')}")


def _split_password(url: str) -> tuple[str, str | None]:
    """Connection string without the password, and the password."""
    params = conninfo_to_dict(url.replace("postgresql+psycopg://", "postgresql://", 1))
    password = params.pop("password", None)
    return make_conninfo("", **params), None if password is None else str(password)


def _installed(name: str) -> Iterator[Path]:
    if on_path := shutil.which(name):
        yield Path(on_path)
    with suppress(EmbeddedError):
        wheel = programs.find(settings().home, None).postgres.parents[2]
        yield from sorted(wheel.glob(f"pginstall*/bin/{name}"))


def _major(path: Path) -> int:
    output = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    return int(version[1]) if version else 0
