"""The optimizers of libraries, by names such as `pytorch_optimizer/soap`, read from `library_optimizers.json`.

`make catalog` writes the file from the installed libraries.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from service.specs.base import unfit
from service.specs.catalog.declaration import Declaration
from service.specs.text import closest

FILE = Path(__file__).with_name("library_optimizers.json")

LIBRARIES = ("torch", "pytorch_optimizer", "schedulefree", "heavyball")
"""First part of the names."""


class Library(BaseModel):
    """A library, and its optimizers in the order of their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    licence: str
    url: str
    optimizers: tuple[Declaration, ...]


@cache
def libraries() -> tuple[Library, ...]:
    """All libraries."""
    return TypeAdapter(tuple[Library, ...]).validate_json(FILE.read_bytes())


@cache
def _declarations() -> dict[str, Declaration]:
    return {declaration.name: declaration for library in libraries() for declaration in library.optimizers}


def is_of_library(name: str) -> bool:
    """Whether `name` begins as that of an optimizer of a library."""
    return name.partition("/")[0] in LIBRARIES and "/" in name


def find_declaration(name: str) -> Declaration | None:
    """The declaration of an optimizer, also of a refused one; None if the name is unknown."""
    return _declarations().get(name)


def unknown_optimizer(name: str) -> str:
    """The error for an unknown optimizer of a library."""
    library = name.partition("/")[0]
    known = [other for other in _declarations() if other.startswith(f"{library}/")]
    hint = closest(name, known)
    return (
        f"unknown optimizer '{name[:64]}'{f' (did you mean {hint!r}?)' if hint else ''}; GET /v1/catalog lists the "
        f"optimizers of {library}"
    )


def declaration(name: str, field: str = "name") -> Declaration:
    """The declaration of an optimizer.

    Args:
        name: such as `torch/asgd`.
        field: the field of the request that has the name, for the error.

    Raises:
        PydanticCustomError: the name is unknown, or the optimizer is refused; the message says why.
    """
    declared = find_declaration(name)
    if declared is None:
        raise unfit(field, unknown_optimizer(name))
    if declared.refusal is not None:
        raise unfit(field, f"{name} cannot be used: {declared.refusal}")
    return declared
