"""Implementation of the server's commands: up, api, worker, migrate, key, gc, doctor, backup, restore."""

from __future__ import annotations

import asyncio
import gc as garbage_collection
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer
import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from service.accounts import api_keys
from service.config import hide_memory, settings
from service.datasets.uploads import confinement
from service.datasets.uploads.upload import STREAMING
from service.errors import Invalid
from service.home import LOOPBACK
from service.operations import connections, retention, stack
from service.operations.backup import backup as backups
from service.operations.backup.archive import BackupError
from service.operations.doctor import findings
from service.operations.doctor.checks import examine
from service.operations.embedded.process import EmbeddedError
from service.specs.quantities import size
from service.specs.text import counted
from service.storage import database, schema_version
from service.storage.files import store
from service.storage.schema_version import Incompatible

REFUSALS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
"""Messages of PostgreSQL for permanent errors; errors before a connection exists have no code."""
MIGRATE_WAIT_SECONDS = 300


def up(host: str | None, port: int | None, home: Path | None, until_end_of_input: bool) -> None:
    """Start database, broker, API and a worker on this machine; Ctrl-C stops all of them."""
    _open_standard_streams()
    with _one_line_errors():
        _choose(KOTRAIN_HOST=host, KOTRAIN_PORT=port, KOTRAIN_HOME=home and _absolute(home))
        logging.basicConfig(level=logging.WARNING, format="kotrain: %(asctime)s %(message)s")
        if until_end_of_input:
            threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
        stack.run(_announce)


def api(host: str | None, port: int | None, fd: int | None) -> None:
    """Serve the HTTP API, using KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    _open_standard_streams()
    with _one_line_errors():
        _choose(KOTRAIN_HOST=host, KOTRAIN_PORT=port)
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
        config = settings()
        _check_schema()
        if config.host not in LOOPBACK and not api_keys.any_exist():
            raise EmbeddedError(f"listening on {config.host} requires an API key: create one with `kotrain key NAME`")
        with socket.socket(fileno=fd) if fd is not None else stack.listen(config.host, config.port) as listener:
            _serve(listener)


def worker() -> None:
    """Run jobs on this machine, using KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    _open_standard_streams()
    with _one_line_errors():
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
        _check_schema()
    # A new process image: the worker starts its forkserver before it imports anything that is imported here.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])


def migrate() -> None:
    """Upgrade the schema of the database at KOTRAIN_DATABASE_URL; a newer compatible schema is left unchanged.

    Waits five minutes for a database that does not answer, because both may be starting with the machine.
    """
    with _one_line_errors(), _ended_by_signals():
        _require("KOTRAIN_DATABASE_URL")
        schema_version.alembic()  # a missing package is named now, not after the wait
        _wait_for_database()
        database.migrate()


def key(name: str, admin: bool, home: Path | None) -> None:
    """Create an API key for a user and print it. kotrain stores only a hash of the key, so it cannot show it again."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with stack.reachable_database():
            database.check_schema()
            typer.echo(api_keys.create(name, admin=admin))


def gc(
    checkpoints_days: float | None, points_days: float | None, dry_run: bool, home: Path | None, as_json: bool
) -> None:
    """Delete expired checkpoints and metric points, and files that no checkpoint refers to."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        default = retention.Policy.of_settings()
        policy = retention.Policy(
            default.checkpoints_days if checkpoints_days is None else checkpoints_days,
            default.points_days if points_days is None else points_days,
            dry_run,
        )
        with stack.reachable_database():
            database.check_schema()
            removed = retention.collect(policy, store())
    typer.echo(removed.model_dump_json(indent=2) if as_json else "\n".join(retention.describe(policy, removed)))
    for problem in removed.problems:
        typer.echo(f"kotrain: {problem}", err=True)
    if removed.problems:
        raise typer.Exit(1)


def doctor(home: Path | None, as_json: bool) -> None:
    """Check this installation, running or stopped, and suggest fixes; exit status 1 if there are errors."""
    with _one_line_errors():
        os.environ.update({} if home is None else {"KOTRAIN_HOME": str(_absolute(home))})
        results = examine()
    if as_json:
        typer.echo(findings.as_json(results))
    else:
        findings.print_text(results)
    if any(finding.level is findings.Level.ERROR for finding in results):
        raise typer.Exit(1)


def backup(file: Path, home: Path | None) -> None:
    """Back up the database and the checkpoints to a new file, whether kotrain is running or stopped."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with stack.reachable_database():
            manifest = backups.create(file)
    contents = (
        f"{counted(manifest.jobs, 'job')}, {counted(len(manifest.files), 'checkpoint')}, {size(manifest.size_bytes)}"
    )
    typer.echo(f"{file}: {contents}")
    if manifest.left_out:
        typer.echo(
            f"not included, because replaced meanwhile or damaged: {counted(len(manifest.left_out), 'checkpoint')}"
        )


def restore(file: Path, home: Path | None) -> None:
    """Restore a backup into an empty database: that of KOTRAIN_DATABASE_URL, or of a home whose stack is stopped."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with backups.verified(file) as verified, stack.reachable_database(must_be_stopped=True):
            restored = backups.restore(verified)
    typer.echo(f"restored from {file}: {counted(restored.jobs, 'job')}, {counted(restored.files, 'checkpoint')}")
    if restored.requeued:
        typer.echo(f"requeued, because running at the time of the backup: {counted(restored.requeued, 'job')}")
    if restored.dropped:
        typer.echo(f"not in the backup: {counted(restored.dropped, 'checkpoint')}; their jobs continue from older ones")


def _wait_for_database() -> None:
    """Wait until the database answers; raise its error if that is permanent or lasts for MIGRATE_WAIT_SECONDS."""
    start = time.monotonic()
    is_announced = False
    while True:
        try:
            with database.engine().connect():
                return
        except OperationalError as error:
            if _is_permanent(error) or time.monotonic() - start > MIGRATE_WAIT_SECONDS:
                raise
            if not is_announced:
                typer.echo(f"kotrain: waiting for the {_line(error)}", err=True)
                is_announced = True
        time.sleep(1)


def _is_permanent(error: OperationalError) -> bool:
    return any(words in str(error) for words in REFUSALS)


def _check_schema() -> None:
    """Raise if the schema is incompatible or the database denies access.

    An unreachable database is not an error: API and worker wait for it at any time.
    """
    try:
        database.check_schema()
    except OperationalError as error:
        if _is_permanent(error):
            raise
        logging.warning("kotrain: database unreachable, schema not checked: %s", _line(error))


class Server(uvicorn.Server):
    """Closes event streams at shutdown instead of waiting for them to end, and logs failed accepts briefly."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does."""
        asyncio.get_running_loop().set_exception_handler(connections.AcceptErrors())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the streams, then shut down as uvicorn does."""
        if "hub" in self.lifespan.state:
            self.lifespan.state["hub"].close()
        await super().shutdown(sockets)


class _DedicatedServer(Server):
    """The server of a process that only serves the API."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does.

        Objects that exist then are frozen: a full garbage collection would stop the event loop for 0.1 s.
        """
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(stack.BACKLOG)  # asyncio has set it to the number of connections that it accepts at once
        garbage_collection.collect()
        garbage_collection.freeze()


def _serve(listener: socket.socket) -> None:
    # uvicorn stops gracefully on a signal and then raises it again; these handlers ignore it, so that we exit with 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for name in ("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL"):  # read already; not for the readers of uploads
        os.environ.pop(name, None)
    hide_memory()
    if not confinement.has_landlock():
        logging.warning("kotrain: this kernel has no Landlock: a reader taken over by its file can read other files")
    open_files = connections.raise_descriptor_limit()
    limits = connections.Limits(
        max(16, min(settings().max_connections, open_files - connections.RESERVED_DESCRIPTORS)),
        settings().max_connections_per_address,
        streaming=STREAMING,
    )
    config = uvicorn.Config(
        "service.app:create_app",
        factory=True,
        http=connections.protocol(limits),
        # Longer than clients keep idle connections: a request on a connection that is being closed would be lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=stack.STREAM_SECONDS,
        backlog=connections.ACCEPTED_AT_ONCE,
        log_level="info",
        proxy_headers=bool(settings().trusted_proxies),
        forwarded_allow_ips=settings().trusted_proxies,
    )
    logging.getLogger("uvicorn.access").addFilter(connections.without_query)
    server = _DedicatedServer(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(1)


def _stop_at_end_of_input() -> None:
    """Stop when the program at the other end of standard input ends, even if it is killed."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _announce(running: stack.Running) -> None:
    with suppress(OSError):  # the stack runs, even if its output is written to a full disk or a closed pipe
        typer.echo(f"kotrain is running at {running.url}")
        if running.remote_url:
            typer.echo(f"  from other machines: {running.remote_url}, each user with a key of `kotrain key NAME`")
        typer.echo("  dashboard: open this address in a browser and enter the API key")
        typer.echo(f"  API key:   {running.key_file}  (found automatically by the tools of this user)")
        typer.echo(f"  logs:      {running.logs}")
        typer.echo("Press Ctrl-C to stop; all data is kept.")


def _open_standard_streams() -> None:
    """Open those that are closed on /dev/null; otherwise a socket would get the number of one, and the lines for it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    # Unbuffered, as in `workers.__main__`: a line that was not written would fail the start of the next process.
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), errors="backslashreplace", write_through=True)
        for descriptor in (1, 2)
    )


def _choose(**environment: object) -> None:
    """Set environment variables from options, for this process and its children."""
    os.environ.update({name: str(value) for name, value in environment.items() if value is not None})
    settings.cache_clear()


def _absolute(home: Path) -> Path:
    """The absolute path, which is valid for children too; `.` is returned unchanged, and rejected by the settings."""
    return home if home == Path() else home.absolute()


def _require(*names: str) -> None:
    for name in names:
        if getattr(settings(), name.removeprefix("KOTRAIN_").lower()) is None:
            raise EmbeddedError(f"{name} is not set: set it, or use `kotrain up`, which starts its own servers")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that the block cleans up as after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    yield


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Expected errors become one line on standard error and exit status 1."""
    try:
        yield
    except (BackupError, EmbeddedError, Incompatible, Invalid, ValidationError, SQLAlchemyError) as error:
        typer.echo(f"kotrain: {_line(error)}", err=True)
        raise typer.Exit(1) from error


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"KOTRAIN_{'_'.join(map(str, first['loc'])).upper()}: {first['msg'].removeprefix('Value error, ')}"
    if isinstance(error, SQLAlchemyError):
        return f"database (KOTRAIN_DATABASE_URL): {' '.join(str(getattr(error, 'orig', error)).split())}"
    return str(error)
