"""Backup and restore: the database as one snapshot saw it, and the files of the store that its rows name.

A backup is taken while everything runs. Files are copied after the snapshot was opened, so that every file its rows
name had been stored; one that a newer checkpoint replaced meanwhile is left out, and its row goes at the restore: the
job then continues from an older checkpoint, or from the beginning.
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

from alembic import command
from sqlalchemy import Connection, delete, func, select, text

from service.config import settings
from service.jobs import claims, outcomes
from service.operations.backup import pg_dump
from service.operations.backup.archive import DATABASE, FILES, BackupError, Manifest, Reader, Writer
from service.specs.states import JobStatus
from service.storage import database, schema_version
from service.storage.files import store
from service.storage.tables import Checkpoint, Job

CHECKPOINTS_SINCE = 3
"""The first schema with files."""
HELD = 256
"""Files that are open at once; a process may have some more."""


# --- backup ----------------------------------------------------------------------------------------------------------


def create(target: Path) -> Manifest:
    """Back the database of the settings up, and the store, into a new file (mode 0600), which is whole or not there.

    Raises `BackupError` (the file is there already, the disk is full, pg_dump is missing or fails) and `Incompatible`.
    """
    with _unfinished(target) as file, database.engine().connect() as connection:
        program = pg_dump.find("pg_dump", _server(connection))
        connection.rollback()
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # it only waits for the copies
        schema = schema_version.read(connection)
        if schema is None:
            raise BackupError("the database holds no schema of kotrain: there is nothing to back up")
        schema_version.refuse_newer(schema)
        writer = Writer(file)
        left_out = _copy_files(connection, writer) if schema.number >= CHECKPOINTS_SINCE else []
        with pg_dump.dumping(program, _url(), snapshot) as dump:
            if not writer.add(DATABASE, dump):
                raise BackupError("what pg_dump wrote could not be read: make the backup again")
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
    """Copy what the snapshot's rows name; answers what was left out, because it was gone, damaged or unreadable.

    Those of jobs at work come first, many opened at once: a local file that is open stays whole when it is removed.
    """
    rows = connection.execute(
        text(
            "SELECT file, sha256 FROM checkpoints JOIN jobs ON jobs.id = job_id"
            " ORDER BY finished_at IS NOT NULL, checkpoints.created_at DESC"
        )
    ).all()
    left_out = []
    for start in range(0, len(rows), HELD):
        with ExitStack() as held:
            sources = [(name, sha256, _opened(held, name)) for name, sha256 in rows[start : start + HELD]]
            for name, sha256, source in sources:
                if source is None or not writer.add(FILES + name, source, sha256):
                    left_out.append(name)
    return left_out


def _opened(held: ExitStack, name: str) -> IO[bytes] | None:
    try:
        return held.enter_context(store().open(name))
    except OSError:
        return None


@contextmanager
def _unfinished(target: Path) -> Iterator[IO[bytes]]:
    """A new file beside the target that takes its name once it is whole and on the disk, and else goes away."""
    if not target.name:
        raise BackupError(f"'{target}' is no name of a file: name a new one")
    unfinished = target.with_name(target.name + ".new")
    try:
        if target.exists():
            raise BackupError(f"{target} exists already: name another file")
        file = open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")  # noqa: SIM115
    except FileExistsError:
        raise BackupError(f"{unfinished} exists: another backup is being made, or was killed: then remove it") from None
    except OSError as error:
        raise BackupError(f"cannot write {unfinished} ({error.strerror}): name a file in another folder") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    except OSError as error:
        where = error.filename or unfinished
        raise BackupError(f"no backup was made ({where}: {error.strerror}): name a file on another disk") from error
    finally:
        unfinished.unlink(missing_ok=True)


# --- restore ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restored:
    """What came back."""

    jobs: int
    files: int
    given_back: int
    """Jobs that were running in the backup and are queued now."""
    dropped: int
    """Checkpoints whose files are not in the backup."""


@contextmanager
def verified(source: Path) -> Iterator[Reader]:
    """A backup that is whole and that this code can use. Raises `BackupError` and `Incompatible`."""
    with Reader(source) as backup:
        backup.verify()
        manifest = backup.manifest
        schema_version.refuse_newer(schema_version.Schema(manifest.schema_number, manifest.oldest_code), of="backup")
        yield backup


def restore(backup: Reader) -> Restored:
    """Bring a verified backup back into the store and the database of the settings, which must hold no user and no job.

    The database comes back as a whole or not at all; an older schema is brought up to ours afterwards. Raises
    `BackupError`.
    """
    with database.engine().connect() as connection:
        _refuse_target(connection, backup.manifest)
        program = pg_dump.find("pg_restore", max(_server(connection), backup.manifest.dumped_with))
    names = [part.name.removeprefix(FILES) for part in backup.manifest.files]
    with _brought_back(backup, names):
        _remove_schema()
        with backup.open(DATABASE) as dump:
            pg_dump.load(program, _url(), dump)
    database.migrate()
    return _settle(names)


def _refuse_target(connection: Connection, manifest: Manifest) -> None:
    """Raise `BackupError` unless the target can take the backup and has nothing to lose."""
    if (server := _server(connection)) < manifest.postgres:
        raise BackupError(
            f"the backup is of PostgreSQL {manifest.postgres} and this server is {server}: use one of "
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
        raise BackupError(f"{others} connections of kotrain to the database are open: stop its API and workers first")


def _refuse_filled(connection: Connection, schema: schema_version.Schema) -> None:
    if schema.number > schema_version.code_number():
        raise BackupError(f"the database has the newer schema {schema.number} already: restore into an empty one")
    users, found = (connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in ("users", "jobs"))
    if users or found:
        raise BackupError(
            f"the database holds {users} users and {found} jobs already: restore into an empty one (another --home, "
            "or KOTRAIN_DATABASE_URL of a new database)"
        )


@contextmanager
def _brought_back(backup: Reader, names: Sequence[str]) -> Iterator[None]:
    """The files are in the store before the rows that name them are in the database; if those do not come, they go."""
    before = {name for name, _ in store().names()} if names else set()
    try:
        for name in names:
            _store(backup, name)
        yield
    except BaseException:
        store().remove(name for name in names if name not in before)
        raise


def _store(backup: Reader, name: str) -> None:
    try:
        with backup.open(FILES + name) as source, store().place(name).open("wb") as target:
            shutil.copyfileobj(source, target)
        store().put(name)
    except OSError as error:
        raise BackupError(
            f"{name} cannot be stored in {store().url} ({error.strerror or error}): make room there, "
            "or name another place with KOTRAIN_FILES"
        ) from error


def _remove_schema() -> None:
    """Undo the migrations of a database that holds nothing, so that the dump meets no table."""
    with database.engine().begin() as connection:
        if schema_version.read(connection) is not None:
            config = schema_version.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _settle(files: Sequence[str]) -> Restored:
    """Forget checkpoints whose files did not come, and give back what was running: those workers are not of this world.

    Should we be killed before this, it comes right by itself: maintenance takes the jobs back, their leases are stale,
    and a checkpoint without its file is passed over.
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
    return Restored(jobs=total, files=len(files), given_back=len(running), dropped=len(dropped))


def _server(connection: Connection) -> int:
    """Major version of the server."""
    return int(connection.scalar(text("SHOW server_version_num"))) // 10_000


def _url() -> str:
    url = settings().database_url
    assert url is not None  # db.engine() has refused it
    return url
