"""Printing: results to standard output, messages and errors to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = Annotated[bool, typer.Option("--json", help="Print the API's response as JSON.")]
PlanOnly = Annotated[bool, typer.Option("--dry-run", help="Only print the plan: its jobs and their estimated time.")]


def say(answer: BaseModel) -> None:
    """Print a response as JSON on standard output."""
    print(answer.model_dump_json(indent=2))


def say_all(answers: Iterable[BaseModel]) -> None:
    """Print responses as a JSON array on standard output, one a line."""
    print("[" + ",\n".join(answer.model_dump_json() for answer in answers) + "]")


def note(line: str) -> None:
    """Print a message on standard error."""
    print(line, file=sys.stderr)


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
