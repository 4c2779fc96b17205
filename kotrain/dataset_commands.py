"""`kotrain data`: list data sets, download built-in ones, upload and delete your own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from kotrain.output import Json, note, say
from service.specs.formats import FileFormat

app = typer.Typer(help="List, upload, download and delete data sets.")
UploadedName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of an uploaded data set, for example images/flowers.")
]


@app.command(name="list")
def show_all(as_json: Json = False) -> None:
    """List all data sets: built-in and uploaded."""
    from kotrain import tables
    from kotrain.client import Client
    from service.datasets.schemas import DatasetList

    with Client() as client:
        listed = client.datasets()
    say(DatasetList(data=listed)) if as_json else tables.console().print(tables.datasets(listed))


@app.command()
def show(name: UploadedName, as_json: Json = False) -> None:
    """Show an uploaded data set."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        detail = client.dataset(name)
    say(detail) if as_json else tables.console().print(tables.dataset(detail))


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="An npz, csv, parquet or jsonl file, or a zip archive with one folder of images per class.",
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Jobs refer to the data set as images/NAME, tables/NAME or texts/NAME."),
    ],
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Default: the file name's extension.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of a table that holds the class. Default: label.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Crop images to centered squares and resize them to this many pixels per side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a file as a data set."""
    from kotrain import progress, tables
    from kotrain.client import Client

    with Client() as client:
        detail = progress.send(client, file, name, file_format, label, image_size)
    say(detail) if as_json else tables.console().print(tables.dataset(detail))


@app.command()
def remove(name: UploadedName) -> None:
    """Delete an uploaded data set of your own; admins can delete any."""
    from kotrain.client import Client

    with Client() as client:
        client.remove_dataset(name)
    note(f"removed {name}")


@app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a downloadable built-in data set, such as cifar10.")
    ],
) -> int:
    """Download a built-in data set to the data folder of this machine."""
    return subprocess.run([sys.executable, "-m", "workers.training.fetch", name], check=False).returncode
