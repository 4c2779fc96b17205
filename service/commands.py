"""The server's own commands, which `kotrain` loads as a plug-in.

`service.operations.commands` carries them out; a command imports it when it runs, so that `kotrain --help`, which lists
these beside its own, needs none of the server.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

if find_spec("sqlalchemy") is None:  # an SDK without a server has this file, but not its packages
    raise ModuleNotFoundError("the server's packages are not installed", name="sqlalchemy")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run kotrain's parts.")

Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="KOTRAIN_PORT, else 8000; 0 takes a free one.")]
HomeFolder = Annotated[Path | None, typer.Option(help="KOTRAIN_HOME; data, key and logs are kept there.")]
BackupFile = Annotated[Path, typer.Argument(help="One file; a tar.", metavar="FILE")]


@app.command()
def up(port: Port = None, home: HomeFolder = None) -> None:
    """Start database, broker, API and a worker here; Ctrl-C stops them all."""
    from service.operations import commands

    commands.up(port, home)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="KOTRAIN_HOST, else 127.0.0.1.")] = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="An inherited listening socket.")] = None,
) -> None:
    """Serve HTTP, with the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    from service.operations import commands

    commands.api(host, port, fd)


@app.command()
def worker() -> None:
    """Train jobs on this machine, for the database and broker of KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL."""
    from service.operations import commands

    commands.worker()


@app.command()
def migrate() -> None:
    """Bring the schema of KOTRAIN_DATABASE_URL to this version's; one that is newer and allows it stays as it is."""
    from service.operations import commands

    commands.migrate()


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="The user, who is made if need be.")],
    admin: Annotated[bool, typer.Option(help="The user may cancel the jobs of others.")] = False,
    home: HomeFolder = None,
) -> None:
    """Print a new API key for a user, of KOTRAIN_DATABASE_URL or of the home. It is shown once."""
    from service.operations import commands

    commands.key(name, admin, home)


@app.command()
def gc(
    checkpoints_days: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Of jobs that ended so long ago; KOTRAIN_KEEP_CHECKPOINTS_DAYS or 1."),
    ] = None,
    points_days: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Their metric points; KOTRAIN_KEEP_POINTS_DAYS, else never."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    home: HomeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Remove what is kept no longer: old checkpoints and metric points, and files that nothing names.

    It works in small transactions while everything runs, or when it is stopped. Jobs, their summaries and their events
    stay.
    """
    from service.operations import commands

    commands.gc(checkpoints_days, points_days, dry_run, home, as_json)


@app.command()
def doctor(
    home: HomeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find and name what is wrong with this installation, running or not; exit status 1 where there is an error."""
    from service.operations import commands

    commands.doctor(home, as_json)


@app.command()
def backup(file: BackupFile, home: HomeFolder = None) -> None:
    """Back up the database and the checkpoints into a new file, while everything runs or when it is stopped.

    It is the database of KOTRAIN_DATABASE_URL, else that of `up`. Data sets and the owner's key are not in it.
    """
    from service.operations import commands

    commands.backup(file, home)


@app.command()
def restore(file: BackupFile, home: HomeFolder = None) -> None:
    """Bring a backup back into an empty database: that of KOTRAIN_DATABASE_URL, else of a home where nothing runs."""
    from service.operations import commands

    commands.restore(file, home)


if __name__ == "__main__":
    app()
