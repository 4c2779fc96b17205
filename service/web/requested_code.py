"""Look up the uploaded code that a request names, before its body is validated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from service.code import versions
from service.specs.catalog import uploaded

MAX_NAMES = 64
"""Names that are looked up for a request; a comparison has fewer optimizers."""


async def _look_up(request: Request) -> None:
    """Make the versions known that the strings in the body may name.

    The body is validated in the event loop, which must not wait for the database.
    """
    try:
        document = await request.json()
    except ValueError:  # the validation says so
        return
    names = {text for text in _strings(document) if uploaded.is_uploaded(text)}
    if names:
        uploaded.REQUESTED.set(await run_in_threadpool(versions.resolve, sorted(names)[:MAX_NAMES]))


def _strings(document: Any) -> Iterator[str]:
    """All values of a JSON document that are strings."""
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


RequestedCode = Depends(_look_up)
"""Dependency of the routes whose body may name uploaded code."""
