"""`kotrain code`: upload, list, show, compare and delete code of your own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from kotrain.output import Json, note, say
from service.specs.patterns import CODE_NAME, WORDS

app = typer.Typer(help="Upload optimizers of your own, list, show, compare and delete them.")
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of uploaded code, such as ada/mine, or ada/mine@3f2a9c71.")
]
Version = Annotated[str, typer.Argument(metavar="NAME", help="Name and version, such as ada/mine@3f2a9c71.")]


@app.command()
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A Python file with an optimizer.")
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Jobs refer to it as USER/NAME. Default: the file's name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a Python file with an optimizer of your own."""
    from kotrain import code_tables, tables
    from kotrain.client import Client

    if name is None and not re.fullmatch(CODE_NAME, file.stem):
        raise typer.BadParameter(f"give a NAME after the file: '{file.stem}' {WORDS[f'^{CODE_NAME}$']}")
    with Client() as client:
        detail = client.add_code(file, name)
    say(detail) if as_json else tables.console().print(code_tables.detail(detail))


@app.command()
def test(
    code: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A Python file with an optimizer, or a plug-in of this machine, such as our_lab/mine."
        ),
    ],
) -> int:
    """Run the conformance test on this machine, without a server. The code is executed with your rights."""
    return subprocess.run([sys.executable, "-m", "workers.training.code_test", code], check=False).returncode


@app.command(name="list")
def show_all(
    owner: Annotated[str | None, typer.Option(help="Only code of this user.")] = None,
    name: Annotated[str | None, typer.Option(help="Only code of this name, without its owner.")] = None,
    as_json: Json = False,
) -> None:
    """List all versions, newest first."""
    from kotrain import code_tables, tables
    from kotrain.client import Client
    from service.code.schemas import CodeView
    from service.specs.bodies import Page

    with Client() as client:
        listed = list(client.list_code(owner=owner, name=name))
    if as_json:
        say(Page[CodeView](data=listed, has_more=False, next=None))
    else:
        tables.console().print(code_tables.versions(listed))


@app.command()
def show(
    name: Name,
    source: Annotated[bool, typer.Option("--source", help="Print the file instead of a description.")] = False,
    as_json: Json = False,
) -> None:
    """Show a version, the newest if NAME has none."""
    from kotrain import code_tables, tables
    from kotrain.client import Client

    with Client() as client:
        detail = client.code(name)
    if source:
        typer.echo(detail.source, nl=False)
    else:
        say(detail) if as_json else tables.console().print(code_tables.detail(detail))


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The older version.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The newer version.")],
) -> None:
    """Show what changed from one version to another, as a unified diff."""
    from kotrain.client import Client

    with Client() as client:
        typer.echo(client.diff_code(old, new), nl=False)


@app.command()
def remove(name: Version) -> None:
    """Delete a version of your own that nothing uses; admins can delete any."""
    from kotrain.client import Client

    with Client() as client:
        client.remove_code(name)
    note(f"removed {name}")
