"""Commands that other parts of kotrain bring along, through the entry point group `kotrain.commands`.

They are loaded only once one of them is typed (or help is asked for).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

import typer
from typer.core import TyperGroup
from typer.main import get_group

GROUP = "kotrain.commands"
SERVER_COMMANDS = ("up", "api", "worker", "migrate", "key", "backup", "restore", "gc", "doctor")
"""What a full installation has on top; only to be told from typing errors where it is not there."""


@cache
def load() -> TyperGroup:
    """All commands of the plug-ins that are installed with what they need."""
    together = typer.Typer()
    for point in entry_points(group=GROUP):
        try:
            together.add_typer(point.load())
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith(("service", "workers", "kotrain")):
                raise  # a defect of ours
    together.callback()(lambda: None)
    return get_group(together)


class Extensible(TyperGroup):
    """A group that also has the plug-ins' commands."""

    def get_command(self, ctx, cmd_name):  # type: ignore[no-untyped-def]  # typer's own click is private
        """The command; where a server's is typed that is not installed, say what to install."""
        found = super().get_command(ctx, cmd_name) or load().get_command(ctx, cmd_name)
        if found is None and cmd_name in SERVER_COMMANDS:
            raise typer.TyperException(f"`kotrain {cmd_name}` needs the server: pip install 'kotrain[all]'")
        return found

    def list_commands(self, ctx):  # type: ignore[no-untyped-def]
        """Ours first."""
        return [*super().list_commands(ctx), *load().list_commands(ctx)]
