"""The server's own commands: up, api, worker, migrate, key. `kotrain` loads them as a plug-in."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service import db, keys, stack
from service.config import LOOPBACK, settings
from service.embedded import EmbeddedError, database_url_of
from service.errors import Invalid

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run kotrain's parts.")

Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="KOTRAIN_PORT, else 8000; 0 takes a free one.")]
HomeFolder = Annotated[Path | None, typer.Option(help="KOTRAIN_HOME; data, key and logs are kept there.")]


@app.command()
def up(port: Port = None, home: HomeFolder = None) -> None:
    """Start database, broker, API and a worker here; Ctrl-C stops them all."""
    with _one_line_errors():
        _choose(KOTRAIN_PORT=port, KOTRAIN_HOME=home and _absolute(home))
        logging.basicConfig(level=logging.WARNING, format="kotrain: %(asctime)s %(message)s")
        stack.run(_announce)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="KOTRAIN_HOST, else 127.0.0.1.")] = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="An inherited listening socket.")] = None,
) -> None:
    """Serve HTTP, with the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    with _one_line_errors():
        _choose(KOTRAIN_HOST=host, KOTRAIN_PORT=port)
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
        wanted = settings()
        if wanted.host not in LOOPBACK and not keys.any_exist():
            raise EmbeddedError(
                f"without an API key the API does not listen on {wanted.host}: make one with `kotrain key NAME`"
            )
        with socket.socket(fileno=fd) if fd is not None else stack.listen(wanted.host, wanted.port) as listener:
            _serve(listener)


@app.command()
def worker() -> None:
    """Train jobs on this machine, for the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    with _one_line_errors():
        _require("KOTRAIN_DATABASE_URL", "KOTRAIN_BROKER_URL")
    # Its forkserver must come before anything that we have imported here.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])


@app.command()
def migrate() -> None:
    """Bring the schema of KOTRAIN_DATABASE_URL to the newest version."""
    with _one_line_errors():
        _require("KOTRAIN_DATABASE_URL")
        db.migrate()


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="The user, who is made if need be.")],
    admin: Annotated[bool, typer.Option(help="The user may cancel the jobs of others.")] = False,
    home: HomeFolder = None,
) -> None:
    """Print a new API key for a user, of KOTRAIN_DATABASE_URL or of what `up` runs here. It is shown once."""
    with _one_line_errors():
        _choose(KOTRAIN_HOME=home and _absolute(home))
        if settings().database_url is None:
            try:
                _choose(KOTRAIN_DATABASE_URL=database_url_of(settings().home))
            except OSError:
                _require("KOTRAIN_DATABASE_URL")
        typer.echo(keys.create(name, admin=admin))


def _serve(listener: socket.socket) -> None:
    # uvicorn stops gracefully on a signal and then raises it again, for whoever listened before: nobody, so exit 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        "service.app:create_app", factory=True, timeout_graceful_shutdown=stack.STREAM_SECONDS, log_level="info"
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(1)


def _announce(running: stack.Running) -> None:
    typer.echo(f"kotrain answers at {running.url}")
    typer.echo(f"  API key:  {running.key_file}  (the tools of this user find it)")
    typer.echo(f"  logs:     {running.logs}")
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
def _one_line_errors() -> Iterator[None]:
    """What a user can do something about becomes one line on standard error and exit status 1."""
    try:
        yield
    except (EmbeddedError, Invalid, ValidationError, SQLAlchemyError) as error:
        typer.echo(f"kotrain: {_line(error)}", err=True)
        raise typer.Exit(1) from error


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"KOTRAIN_{'_'.join(map(str, first['loc'])).upper()}: {first['msg'].removeprefix('Value error, ')}"
    if isinstance(error, SQLAlchemyError):
        return f"the database of KOTRAIN_DATABASE_URL: {' '.join(str(getattr(error, 'orig', error)).split())}"
    return str(error)


if __name__ == "__main__":
    app()
