"""What the server's commands do: up, api, worker, migrate, key, gc, doctor, backup, restore."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from service.accounts import api_keys
from service.config import LOOPBACK, settings
from service.errors import Invalid
from service.operations import retention, stack
from service.operations.backup import backup as backups
from service.operations.backup.archive import BackupError
from service.operations.doctor import findings
from service.operations.doctor.checks import examine
from service.operations.embedded.process import EmbeddedError
from service.storage import database
from service.storage.files import store
from service.storage.schema_version import Incompatible

REFUSALS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
"""What PostgreSQL says to whom it will not let in later either; before there is a connection errors have no code."""


def up(port: int | None, home: Path | None) -> None:
    """Start database, broker, API and a worker here; Ctrl-C stops them all."""
    with _one_line_errors():
        _choose(KOTRAIN_PORT=port, KOTRAIN_HOME=home and _absolute(home))
        logging.basicConfig(level=logging.WARNING, format="kotrain: %(asctime)s %(message)s")
        stack.run(_announce)


def api(host: str | None, port: int | None, fd: int | None) -> None:
    """Serve HTTP, with the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    with _one_line_errors():
        _choose(KOTRAIN_HOST=host, KOTRAIN_PORT=port)
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
        wanted = settings()
        _check_schema()
        if wanted.host not in LOOPBACK and not api_keys.any_exist():
            raise EmbeddedError(
                f"without an API key the API does not listen on {wanted.host}: make one with `kotrain key NAME`"
            )
        with socket.socket(fileno=fd) if fd is not None else stack.listen(wanted.host, wanted.port) as listener:
            _serve(listener)


def worker() -> None:
    """Train jobs on this machine, for the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    with _one_line_errors():
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
        _check_schema()
    # Its forkserver must come before anything that we have imported here.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])


def migrate() -> None:
    """Bring the schema of KOTRAIN_DATABASE_URL to this version's; one that is newer and allows it stays as it is."""
    with _one_line_errors():
        _require("KOTRAIN_DATABASE_URL")
        database.migrate()


def key(name: str, admin: bool, home: Path | None) -> None:
    """Print a new API key for a user, of KOTRAIN_DATABASE_URL or of the home. It is shown once."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with stack.database():
            database.check_schema()
            typer.echo(api_keys.create(name, admin=admin))


def gc(
    checkpoints_days: float | None, points_days: float | None, dry_run: bool, home: Path | None, as_json: bool
) -> None:
    """Remove what is kept no longer: old checkpoints and metric points, and files that nothing names."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        kept = retention.Policy.of_settings()
        policy = retention.Policy(
            kept.checkpoints_days if checkpoints_days is None else checkpoints_days,
            kept.points_days if points_days is None else points_days,
            dry_run,
        )
        with stack.database():
            database.check_schema()
            removed = retention.collect(policy, store())
    typer.echo(removed.model_dump_json(indent=2) if as_json else "\n".join(retention.told(policy, removed)))
    for problem in removed.problems:
        typer.echo(f"kotrain: {problem}", err=True)
    if removed.problems:
        raise typer.Exit(1)


def doctor(home: Path | None, as_json: bool) -> None:
    """Find and name what is wrong with this installation, running or not; exit status 1 where there is an error."""
    with _one_line_errors():
        os.environ.update({} if home is None else {"KOTRAIN_HOME": str(_absolute(home))})
        found = examine()
    typer.echo(findings.as_json(found) if as_json else findings.as_text(found, is_coloured=sys.stdout.isatty()))
    if any(finding.level is findings.Level.ERROR for finding in found):
        raise typer.Exit(1)


def backup(file: Path, home: Path | None) -> None:
    """Back up the database and the checkpoints into a new file, while everything runs or when it is stopped."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with stack.database():
            made = backups.create(file)
    typer.echo(f"{file}: jobs: {made.jobs}, checkpoints: {len(made.files)}, MiB: {made.size_bytes / 2**20:.1f}")
    if made.left_out:
        typer.echo(f"checkpoints that were replaced meanwhile, or damaged, and are not in it: {len(made.left_out)}")


def restore(file: Path, home: Path | None) -> None:
    """Bring a backup back into an empty database: that of KOTRAIN_DATABASE_URL, else of a home where nothing runs."""
    with _one_line_errors(), _ended_by_signals():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        with backups.verified(file) as whole, stack.database(of_a_stopped_one=True):
            done = backups.restore(whole)
    typer.echo(f"back from {file}: jobs: {done.jobs}, checkpoints: {done.files}")
    if done.given_back:
        typer.echo(f"jobs that were running then and are queued now: {done.given_back}")
    if done.dropped:
        typer.echo(f"checkpoints that the backup does not hold: {done.dropped}; their jobs continue from older ones")


def _check_schema() -> None:
    """Refuse to start on a schema that we cannot work with, or where the database does not let us in.

    One that is away is waited for, as at any time.
    """
    try:
        database.check_schema()
    except OperationalError as away:
        if any(words in str(away) for words in REFUSALS):
            raise
        logging.warning("kotrain: the database is away, its schema is not checked: %s", _line(away))


class Server(uvicorn.Server):
    """Ends the streams when it shuts down, instead of waiting until they end by themselves."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        if "hub" in self.lifespan.state:
            self.lifespan.state["hub"].close()
        await super().shutdown(sockets)


def _serve(listener: socket.socket) -> None:
    # uvicorn stops gracefully on a signal and then raises it again, for whoever listened before: nobody, so exit 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        "service.app:create_app",
        factory=True,
        # Longer than clients keep a connection that is idle: a request on one that we are just closing would be lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=stack.STREAM_SECONDS,
        log_level="info",
    )
    server = Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(1)


def _announce(running: stack.Running) -> None:
    typer.echo(f"kotrain answers at {running.url}")
    typer.echo("  dashboard: the same address in a browser, which asks for the key")
    typer.echo(f"  API key:   {running.key_file}  (the tools of this user find it)")
    typer.echo(f"  logs:      {running.logs}")
    typer.echo("Ctrl-C stops it; the data stays.")


def _choose(**environment: object) -> None:
    """Put what was typed where settings are read from, for us and for our children."""
    os.environ.update({name: str(value) for name, value in environment.items() if value is not None})
    settings.cache_clear()


def _absolute(home: Path) -> Path:
    """For our children too, wherever they run; `.` stays, and is refused."""
    return home if home == Path() else home.absolute()


def _require(*names: str) -> None:
    for name in names:
        if getattr(settings(), name.removeprefix("KOTRAIN_").lower()) is None:
            raise EmbeddedError(f"{name} is not set: set it, or use `kotrain up`, which brings its own servers")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that nothing half done is left."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    yield


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can do something about becomes one line on standard error and exit status 1."""
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
        return f"the database of KOTRAIN_DATABASE_URL: {' '.join(str(getattr(error, 'orig', error)).split())}"
    return str(error)
