"""Look up the uploaded code that a request names, before its body is validated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from service.code import versions
from service.comparisons.design.requests import MAX_OPTIMIZERS
from service.specs.catalog import uploaded

MAX_CHOICES = 64
"""Values of `base` in a search space; the validation refuses more."""


async def _look_up(request: Request) -> None:
    """Make the versions known that the optimizers in the body name.

    The body is validated in the event loop, which must not wait for the database.
    """
    try:
        document = await request.json()
    except ValueError:  # the validation says so
        return
    names = {name for name in _names(document) if isinstance(name, str) and uploaded.is_uploaded(name)}
    if names:
        uploaded.REQUESTED.set(await run_in_threadpool(versions.resolve, names))


def _names(document: Any) -> Iterator[Any]:
    """The values that name an optimizer or a base, in a request that has not been validated."""
    listed = _field(document, "optimizers")
    for optimizer in [_field(document, "optimizer"), *(listed[:MAX_OPTIMIZERS] if isinstance(listed, list) else ())]:
        yield optimizer
        yield _field(optimizer, "name")
        yield _field(optimizer, "params", "base")
        choices = _field(optimizer, "space", "base", "choice")
        yield from choices[:MAX_CHOICES] if isinstance(choices, list) else ()


def _field(document: Any, *path: str) -> Any:
    """The value at the end of a path; None if there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


RequestedCode = Depends(_look_up)
"""Dependency of the routes whose body may name uploaded code."""
