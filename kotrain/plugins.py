"""Commands that other parts of kotrain provide through the entry point group `kotrain.commands`.

They are loaded only when one of them is used or help is requested.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from service.specs.extras import install_hint

GROUP = "kotrain.commands"
SERVER_COMMANDS = ("up", "api", "worker", "migrate", "key", "backup", "restore", "gc", "doctor")
"""Commands of the server extra, so that a missing extra can be reported instead of an unknown command."""


@cache
def load() -> TyperGroup:
    """All commands of the plug-ins whose dependencies are installed."""
    commands = typer.Typer()
    for point in entry_points(group=GROUP):
        try:
            commands.add_typer(point.load())
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith(("service", "workers", "kotrain")):
                raise  # a bug, not a missing dependency
    commands.callback()(lambda: None)
    return get_group(commands)


def _hide_types_of_flags(command: Any, ctx: Any) -> None:  # typer's own click is private
    """Make the help show flags without a type: `--json <bool>` looks as if the flag took a value."""
    for param in command.get_params(ctx):
        if getattr(param, "is_flag", False):
            param.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _hide_types_of_flags(subcommand, ctx)


class Extensible(TyperGroup):
    """A command group extended by the commands of plug-ins."""

    def get_command(self, ctx, cmd_name):  # type: ignore[no-untyped-def]
        """The command; raises with installation instructions for a server command without the server extra."""
        command = super().get_command(ctx, cmd_name) or load().get_command(ctx, cmd_name)
        if command is None and cmd_name in SERVER_COMMANDS:
            raise typer.TyperException(f"`kotrain {cmd_name}` needs the server; {install_hint('all')}")
        if command is not None:
            _hide_types_of_flags(command, ctx)
        return command

    def list_commands(self, ctx):  # type: ignore[no-untyped-def]
        """Own commands first, then those of plug-ins."""
        return [*super().list_commands(ctx), *load().list_commands(ctx)]

    def format_help(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """The help of the group itself."""
        _hide_types_of_flags(self, ctx)
        super().format_help(ctx, formatter)
