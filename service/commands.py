"""The server's commands, which `kotrain` loads as a plug-in.

They are implemented in `service.operations.commands`, which a command imports when it runs: `kotrain --help` lists
them without importing the server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from service.specs.extras import install_hint

if find_spec("sqlalchemy") is None:  # the SDK alone contains this file, too
    raise ModuleNotFoundError("the server's packages are not installed", name="sqlalchemy")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run and maintain a kotrain server.")

Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on; 0.0.0.0: other machines, too. Default: KOTRAIN_HOST or 127.0.0.1."),
]
Port = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port. Default: KOTRAIN_PORT or 8000; 0: any free port.")
]
HomeFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for database, data, key and logs. Default: KOTRAIN_HOME or ~/.kotrain (root: /var/lib/kotrain)."
    ),
]
BackupFile = Annotated[Path, typer.Argument(help="Backup file (tar).", metavar="FILE")]
OWN_PACKAGES = ("service", "workers", "migrations")


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Make the function a command that names a missing package and the remedy, whenever it imports the package."""

    @app.command()
    @wraps(function)
    def run(**options: Any) -> None:
        try:
            function(**options)
        except ModuleNotFoundError as error:
            if error.name is None or "." in error.name or error.name in OWN_PACKAGES:
                raise  # a bug
            message = f"`kotrain {function.__name__}` needs the package {error.name}; {install_hint('all')}"
            typer.echo(f"kotrain: {message}", err=True)
            raise typer.Exit(1) from error

    return run


@_command
def up(
    host: Host = None,
    port: Port = None,
    home: HomeFolder = None,
    until_end_of_input: Annotated[
        bool, typer.Option("--until-end-of-input", hidden=True, help="Also stop when standard input ends.")
    ] = False,
) -> None:
    """Start the database, the broker, the API and a worker on this machine; Ctrl-C stops all of them."""
    from service.operations import commands

    commands.up(host, port, home, until_end_of_input)


@_command
def api(
    host: Host = None,
    port: Port = None,
    fd: Annotated[
        int | None, typer.Option(hidden=True, help="File descriptor of an inherited listening socket.")
    ] = None,
) -> None:
    """Serve the HTTP API, using KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    from service.operations import commands

    commands.api(host, port, fd)


@_command
def worker() -> None:
    """Run jobs on this machine, using KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    import celery  # noqa: F401 (the worker's own process would end with a traceback)

    from service.operations import commands

    commands.worker()


@_command
def migrate() -> None:
    """Upgrade the schema of the database at KOTRAIN_DATABASE_URL; a newer compatible schema is left unchanged."""
    from service.operations import commands

    commands.migrate()


@_command
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the user, who is created if new.")],
    admin: Annotated[
        bool, typer.Option(help="Make the user an admin; --no-admin does not revoke admin rights.")
    ] = False,
    home: HomeFolder = None,
) -> None:
    """Create an API key for a user and print it. kotrain stores only a hash of the key, so it cannot show it again."""
    from service.operations import commands

    commands.key(name, admin, home)


@_command
def gc(
    checkpoints_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="DAYS",
            help="Keep checkpoints for this long after the end of a job. Default: KOTRAIN_KEEP_CHECKPOINTS_DAYS or 1.",
        ),
    ] = None,
    points_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="DAYS",
            help="Keep metric points for this long after the end of a job. Default: KOTRAIN_KEEP_POINTS_DAYS or "
            "forever.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be deleted.")] = False,
    home: HomeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Delete expired checkpoints and metric points, and files that no checkpoint refers to.

    Works in small transactions, whether kotrain is running or stopped. Jobs, their summaries and their events are kept.
    """
    from service.operations import commands

    commands.gc(checkpoints_days, points_days, dry_run, home, as_json)


@_command
def doctor(
    home: HomeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this installation, running or stopped, and suggest fixes; exit status 1 if there are errors."""
    from service.operations import commands

    commands.doctor(home, as_json)


@_command
def backup(file: BackupFile, home: HomeFolder = None) -> None:
    """Back up the database and the checkpoints to a new file, whether kotrain is running or stopped.

    Backs up the database at KOTRAIN_DATABASE_URL, or that of the home folder.
    Data sets and the key file of the user `owner` are not included.
    """
    from service.operations import commands

    commands.backup(file, home)


@_command
def restore(file: BackupFile, home: HomeFolder = None) -> None:
    """Restore a backup into an empty database.

    Restores into the database at KOTRAIN_DATABASE_URL or, if that is not set, into a new database in the home folder.
    No API or worker may use that database or home folder.
    """
    from service.operations import commands

    commands.restore(file, home)


if __name__ == "__main__":
    app()
