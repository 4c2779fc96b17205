"""`kotrain data`: list data sets, download the published ones, register and remove your own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kotrain import tables
from kotrain.client import Client
from kotrain.output import Json, note, say
from service.datasets.schemas import DatasetDetail, DatasetList, FileFormat

app = typer.Typer(help="List, register, download and remove data sets.")


@app.command(name="list")
def show_all(as_json: Json = False) -> None:
    """List all data sets: built-in and registered."""
    with Client() as client:
        found = client.datasets()
    say(DatasetList(data=found)) if as_json else tables.console().print(tables.datasets(found))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a registered data set, for example images/flowers.")],
    as_json: Json = False,
) -> None:
    """Show a registered data set."""
    with Client() as client:
        found = client.dataset(name)
    say(found) if as_json else tables.console().print(tables.dataset(found))


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="An npz, csv, parquet or jsonl file, or a zip archive with one folder of images per class.",
        ),
    ],
    name: Annotated[
        str, typer.Argument(help="Name to use in jobs, after the kind: images/NAME, tables/NAME, texts/NAME.")
    ],
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Default: the file name's extension.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of a table that holds the class. Default: label.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize and crop images to squares of this side, in pixels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a file and register it as a data set."""
    with Client() as client:
        made = _send(client, file, name, file_format, label, image_size)
    say(made) if as_json else tables.console().print(tables.dataset(made))


def _send(
    client: Client, file: Path, name: str, file_format: FileFormat | None, label: str | None, image_size: int | None
) -> DatasetDetail:
    """Upload the file with a progress bar on standard error; the server validates it after the last byte."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=tables.console(stderr=True), transient=True) as bar:
        size = file.stat().st_size
        task = bar.add_task("sending", total=size)

        def sent(size_bytes: int) -> None:
            bar.update(task, completed=size_bytes, description="sending" if size_bytes < size else "checking")

        return client.add_dataset(file, name, format=file_format, label=label, image_size=image_size, on_sent=sent)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of a registered data set, for example images/flowers.")],
) -> None:
    """Remove a data set that you registered."""
    with Client() as client:
        client.remove_dataset(name)
    note(f"removed {name}")


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="Name of a published data set, such as cifar10.")]) -> int:
    """Download a published data set to the data folder of this machine."""
    return subprocess.run([sys.executable, "-m", "workers.training.fetch", name], check=False).returncode
