"""`kotrain data`: list data sets, download built-in ones, upload and delete your own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kotrain.output import Json, note, say
from service.specs.formats import FileFormat

if TYPE_CHECKING:
    from kotrain.client import Client

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
        detail = client.dataset(_full_name(client, name))
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
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Column to leave out; repeatable.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column to read as numbers although it looks like an identifier of the rows; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a file as a data set."""
    from kotrain import progress, tables
    from kotrain.client import Client

    with Client() as client:
        columns = {"label": label, "drop": drop or [], "keep": keep or []}
        detail = progress.send(client, file, name, format=file_format, image_size=image_size, **columns)
    say(detail) if as_json else tables.console().print(tables.dataset(detail))


@app.command()
def remove(name: UploadedName) -> None:
    """Delete an uploaded data set of your own; admins can delete any."""
    from kotrain.client import Client

    with Client() as client:
        full_name = _full_name(client, name)
        client.remove_dataset(full_name)
    note(f"removed {full_name}")


def _full_name(client: Client, name: str) -> str:
    """The name of an uploaded data set with its kind. Raises BadParameter if it is not that of exactly one."""
    if "/" in name:
        return name
    views = client.datasets()
    if any(view.name == name and not view.own for view in views):
        raise typer.BadParameter(f"'{name}' is a built-in data set; `kotrain data list` lists those that are uploaded")
    names = [view.name for view in views if view.own and view.name.partition("/")[2] == name]
    if len(names) != 1:
        raise typer.BadParameter(f"choose one of {', '.join(names)}" if names else f"no uploaded data set '{name}'")
    return names[0]


@app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a downloadable built-in data set, such as cifar10.")
    ],
) -> int:
    """Download a built-in data set to the data folder of this machine."""
    return subprocess.run([sys.executable, "-m", "workers.training.fetch", name], check=False).returncode
