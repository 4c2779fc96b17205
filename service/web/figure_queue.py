"""Figures and reports are drawn one at a time, without a database session, outside the limit of concurrent requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from service.web.bounded_queue import BoundedQueue

Drawing = TypeVar("Drawing")

FIGURES = BoundedQueue("figures", 16, "figures and reports")
"""The largest figures (eight panels, 4000 pixels wide) took 4.6 s each on a busy machine, typical ones much less."""


async def draw_in_queue(request: Request, draw: Callable[[], Drawing]) -> Drawing:
    """The result of `draw`, which reads its data in a session of its own, so that waiting requests hold none.

    matplotlib draws one figure at a time in any case. If each waiting request held a thread, a connection and a slot of
    the concurrency limit, about forty figures would block all other requests.

    Raises:
        Unavailable: the queue is full.
    """
    drawing = FIGURES.submit(draw)
    request.state.release_slot()
    return await asyncio.wrap_future(drawing)
