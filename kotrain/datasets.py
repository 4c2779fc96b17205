"""`kotrain data`: list data sets, download the published ones, register and remove your own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from kotrain.output import Json, note, say
from service.specs.formats import FileFormat

app = typer.Typer(help="Data sets.")


@app.command(name="list")
def show_all(as_json: Json = False) -> None:
    """List the data sets that a job can name."""
    from kotrain import tables
    from kotrain.client import Client
    from service.datasets.schemas import DatasetList

    with Client() as client:
        found = client.datasets()
    say(DatasetList(data=found)) if as_json else tables.console().print(tables.datasets(found))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a registered data set, such as images/flowers.")],
    as_json: Json = False,
) -> None:
    """Show a registered data set."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found = client.dataset(name)
    say(found) if as_json else tables.console().print(tables.dataset(found))


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="npz, csv, parquet, jsonl, or a zip archive of class folders."
        ),
    ],
    name: Annotated[str, typer.Argument(help="What jobs are to call it, behind its kind.")],
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="By default what the file's name ends in.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of a table that holds the class.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side, in pixels, that images are cut to.")] = None,
    as_json: Json = False,
) -> None:
    """Register a data set of your own."""
    from kotrain import progress, tables
    from kotrain.client import Client

    with Client() as client:
        made = progress.send(client, file, name, file_format, label, image_size)
    say(made) if as_json else tables.console().print(tables.dataset(made))


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of a registered data set, such as images/flowers.")]) -> None:
    """Remove a data set that you registered."""
    from kotrain.client import Client

    with Client() as client:
        client.remove_dataset(name)
    note(f"removed {name}")


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="Name of a data set.")]) -> int:
    """Download a published data set to this machine."""
    return subprocess.run([sys.executable, "-m", "workers.training.fetch", name], check=False).returncode
