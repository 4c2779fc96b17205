"""What commands say: answers on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]


def say(answer: BaseModel) -> None:
    """An answer, for programs."""
    print(answer.model_dump_json(indent=2))


def note(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr)


def complain(*lines: str) -> None:
    """What went wrong."""
    for line in lines:
        note(f"kotrain: {line}")
