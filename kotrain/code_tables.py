"""Uploaded code as tables for terminals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kotrain.catalog_tables import parameters
from kotrain.tables import local_time, plain
from service.code.schemas import CodeDetail, CodeView


def versions(listed: Sequence[CodeView]) -> Table:
    """One row per version."""
    table = plain("name", "title", "test", "uploaded")
    for version in listed:
        table.add_row(version.name, Text(version.title), version.outcome or "-", local_time(version.created_at))
    return table


def detail(code: CodeDetail) -> Group:
    """A version: its parameters and default search space, and how to use it."""
    space = ", ".join(f"{name} {_range(values)}" for name, values in code.space.items())
    tested = plain("check", "outcome", "")
    for check in code.checks or ():
        tested.add_row(check.name, check.outcome, Text(check.text))
    return Group(
        Text(f"{code.name}: {code.title}"),
        parameters(code.params),
        Text(f"default search space: {space or 'none'}"),
        tested if code.checks else Text("the conformance test has not run yet"),
        Text(f"in jobs and comparisons: {code.name}, or {code.name.partition('@')[0]} for the newest version"),
    )


def _range(values: dict[str, Any]) -> str:
    """A range in words, such as `log_uniform 0.0001 to 0.1`."""
    ((form, ends),) = values.items()
    return f"{form} {(', ' if form == 'choice' else ' to ').join(str(end) for end in ends)}"
