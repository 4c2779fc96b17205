"""Backup and restore of a database snapshot and the files of the store that its rows refer to.

A backup can be taken while kotrain runs. Files are copied after the snapshot was opened, so every file that its rows
refer to had been stored. Files that a newer checkpoint replaced in the meantime are left out; the restore deletes their
rows, and the jobs continue from an older checkpoint or from the beginning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, delete, func, select, text

from service.config import settings
from service.jobs import claims, outcomes
from service.operations.backup import pg_dump
from service.operations.backup.archive import DATABASE, FILES, BackupError, Manifest, Reader, Writer
from service.specs.states import JobStatus
from service.specs.text import counted
from service.storage import database, schema_version
from service.storage.files import store
from service.storage.tables import Checkpoint, Job

CHECKPOINTS_SINCE = 3
"""First schema number with checkpoint files."""
MAX_OPEN_FILES = 256
"""Maximum number of files open at the same time, below the limit of the process."""


# --- backup ----------------------------------------------------------------------------------------------------------


def create(target: Path) -> Manifest:
    """Back up the database and the store of the settings to a new file (mode 0600), completely or not at all.

    Raises `BackupError` (file exists, disk full, pg_dump missing or failed) and `Incompatible`.
    """
    with _unfinished(target) as file, database.engine().connect() as connection:
        program = pg_dump.find("pg_dump", _server(connection))
        connection.rollback()
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # idle while files are copied
        schema = schema_version.read(connection)
        if schema is None:
            raise BackupError("the database has no kotrain schema: nothing to back up")
        schema_version.refuse_newer(schema)
        writer = Writer(file)
        left_out = _copy_files(connection, writer) if schema.number >= CHECKPOINTS_SINCE else []
        with pg_dump.dumping(program, _url(), snapshot) as dump:
            if not writer.add(DATABASE, dump):
                raise BackupError("the output of pg_dump could not be read: repeat the backup")
        manifest = Manifest(
            kotrain=version("kotrain"),
            created_at=datetime.now(UTC),
            schema_number=schema.number,
            oldest_code=schema.oldest_code,
            postgres=_server(connection),
            dumped_with=program.major,
            database_bytes=connection.scalar(text("SELECT pg_database_size(current_database())")),
            jobs=connection.scalar(text("SELECT count(*) FROM jobs")),
            parts=writer.parts,
            left_out=left_out,
        )
        writer.close(manifest)
    return manifest


def _copy_files(connection: Connection, writer: Writer) -> list[str]:
    """Copy the files that the snapshot's rows refer to. Returns the names left out: missing, damaged or unreadable.

    Files of unfinished jobs come first, and many are opened at once: an open local file stays readable when removed.
    """
    rows = connection.execute(
        text(
            "SELECT file, sha256 FROM checkpoints JOIN jobs ON jobs.id = job_id"
            " ORDER BY finished_at IS NOT NULL, checkpoints.created_at DESC"
        )
    ).all()
    left_out = []
    for start in range(0, len(rows), MAX_OPEN_FILES):
        with ExitStack() as stack:
            sources = [(name, sha256, _open(stack, name)) for name, sha256 in rows[start : start + MAX_OPEN_FILES]]
            for name, sha256, source in sources:
                if source is None or not writer.add(FILES + name, source, sha256):
                    left_out.append(name)
    return left_out


def _open(stack: ExitStack, name: str) -> IO[bytes] | None:
    """The file, open until the end of `stack`; None if it cannot be opened."""
    try:
        return stack.enter_context(store().open(name))
    except OSError:
        return None


@contextmanager
def _unfinished(target: Path) -> Iterator[IO[bytes]]:
    """A temporary file next to the target, renamed to it once complete and synced, and removed on errors."""
    if not target.name:
        raise BackupError(f"'{target}' is not a file name: choose a new file")
    unfinished = target.with_name(target.name + ".new")
    try:
        if target.exists():
            raise BackupError(f"{target} already exists: choose another file")
        file = open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")  # noqa: SIM115
    except FileExistsError:
        raise BackupError(
            f"{unfinished} exists: another backup is running; if it was killed, delete this file"
        ) from None
    except OSError as error:
        raise BackupError(f"cannot write {unfinished} ({error.strerror}): choose a file in another folder") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    except OSError as error:
        where = error.filename or unfinished
        raise BackupError(f"backup failed ({where}: {error.strerror}): choose a file on another disk") from error
    finally:
        unfinished.unlink(missing_ok=True)


# --- restore ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restored:
    """Counts of restored data."""

    jobs: int
    files: int
    requeued: int
    """Jobs that were running at the time of the backup and are queued now."""
    dropped: int
    """Checkpoints deleted because their files are not in the backup."""


@contextmanager
def verified(source: Path) -> Iterator[Reader]:
    """Open a backup, verified and of a compatible version. Raises `BackupError` and `Incompatible`."""
    with Reader(source) as backup:
        backup.verify()
        manifest = backup.manifest
        schema_version.refuse_newer(schema_version.Schema(manifest.schema_number, manifest.oldest_code), of="backup")
        yield backup


def restore(backup: Reader) -> Restored:
    """Restore a verified backup into the store and the database of the settings, which must hold no users and no jobs.

    The database is restored completely or not at all, and an older schema is upgraded afterwards. Raises `BackupError`.
    """
    with database.engine().connect() as connection:
        _refuse_target(connection, backup.manifest)
        program = pg_dump.find("pg_restore", max(_server(connection), backup.manifest.dumped_with))
    names = [part.name.removeprefix(FILES) for part in backup.manifest.files]
    with _stored(backup, names):
        _remove_schema()
        with backup.open(DATABASE) as dump:
            pg_dump.load(program, _url(), dump)
    database.migrate()
    return _settle(names)


def _refuse_target(connection: Connection, manifest: Manifest) -> None:
    """Raise `BackupError` unless the target database is compatible, empty and not in use."""
    if (server := _server(connection)) < manifest.postgres:
        raise BackupError(
            f"the backup is of PostgreSQL {manifest.postgres}, this server is {server}: use a server of version "
            f"{manifest.postgres} or newer"
        )
    schema = schema_version.read(connection)
    if schema is not None:
        _refuse_filled(connection, schema)
    others = connection.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND (application_name = 'kotrain' OR starts_with(application_name, 'kotrain '))"
        )
    )
    if others:
        raise BackupError(
            f"kotrain has {counted(others, 'open connection')} to the database: stop its API and workers first"
        )


def _refuse_filled(connection: Connection, schema: schema_version.Schema) -> None:
    if schema.number > schema_version.code_number():
        raise BackupError(f"the database already has the newer schema {schema.number}: restore into an empty one")
    users, jobs = (connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in ("users", "jobs"))
    if users or jobs:
        raise BackupError(
            f"the database already has {counted(users or 0, 'user')} and {counted(jobs or 0, 'job')}: restore into an "
            "empty one (another --home, or KOTRAIN_DATABASE_URL of a new database)"
        )


@contextmanager
def _stored(backup: Reader, names: Sequence[str]) -> Iterator[None]:
    """Store the files before the block restores the rows that refer to them; remove them if it fails."""
    before = {name for name, _ in store().names()} if names else set()
    try:
        for name in names:
            _store_file(backup, name)
        yield
    except BaseException:
        store().remove(name for name in names if name not in before)
        raise


def _store_file(backup: Reader, name: str) -> None:
    try:
        with backup.open(FILES + name) as source, store().place(name).open("wb") as target:
            shutil.copyfileobj(source, target)
        store().put(name)
    except OSError as error:
        raise BackupError(
            f"cannot store {name} in {store().url} ({error.strerror or error}): free space there, "
            "or set KOTRAIN_FILES to another store"
        ) from error


def _remove_schema() -> None:
    """Undo the migrations of an empty database, so that the dump can create all tables."""
    from alembic import command  # noqa: PLC0415 (0.1 s that the API does not need)

    with database.engine().begin() as connection:
        if schema_version.read(connection) is not None:
            config = schema_version.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _settle(files: Sequence[str]) -> Restored:
    """Delete checkpoints without files, and requeue jobs that were running: their workers no longer exist.

    This step is optional: without it, maintenance requeues the jobs when their leases expire, and checkpoints without
    files are skipped.
    """
    with database.transaction() as session:
        dropped = sorted(set(session.scalars(select(Checkpoint.file))) - set(files))
        session.execute(delete(Checkpoint).where(Checkpoint.file == func.any(dropped)))
        running = session.scalars(select(Job).where(Job.status == JobStatus.RUNNING)).all()
        for job in running:
            claim = claims.Claim(
                job_id=job.id,
                attempt=job.attempt,
                spec=job.spec,
                time_limit_seconds=job.time_limit_seconds,
                memory_limit_bytes=job.memory_limit_bytes,
                step=job.step,
            )
            outcomes.requeue(session, claim, "restored from a backup, in which it was running")
        total = session.scalar(select(func.count(Job.id))) or 0
    return Restored(jobs=total, files=len(files), requeued=len(running), dropped=len(dropped))


def _server(connection: Connection) -> int:
    """Major version of the database server."""
    return int(connection.scalar(text("SHOW server_version_num"))) // 10_000


def _url() -> str:
    url = settings().database_url
    assert url is not None  # database.engine() raises without it
    return url
