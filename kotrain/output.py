"""Printing: results to standard output, messages and errors to standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = Annotated[bool, typer.Option("--json", help="Print the API's response as JSON.")]
PlanOnly = Annotated[bool, typer.Option("--dry-run", help="Only print the plan: its jobs and their estimated time.")]


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal or change the direction of the text around them; tabs and new lines do not."""


def printable(text: str) -> str:
    """The text without characters that control a terminal: other users may have written it."""
    return _CONTROL.sub("\ufffd", text)


def json_of(answer: BaseModel, indent: int | None = None) -> str:
    """The response as JSON, in which such characters are escaped; in its strings, JSON escapes the first 32 itself."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", answer.model_dump_json(indent=indent))


def say(answer: BaseModel) -> None:
    """Print a response as JSON on standard output."""
    print(json_of(answer, indent=2))


def say_all(answers: Iterable[BaseModel]) -> None:
    """Print responses as a JSON array on standard output, one a line."""
    print("[" + ",\n".join(map(json_of, answers)) + "]")


def note(line: str) -> None:
    """Print a message on standard error."""
    print(printable(line), file=sys.stderr)


@contextmanager
def noting(line: str) -> Iterator[None]:
    """Print a message if the block is interrupted or cannot write, which then ends the command."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        note(f"kotrain: {line}")
        raise


def complain(*lines: str) -> None:
    """Print errors on standard error."""
    for line in lines:
        note(f"kotrain: {line}")
