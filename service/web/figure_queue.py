"""Queue of figures and reports, drawn one at a time, without a database session and without a concurrency slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from service.web.bounded_queue import BoundedQueue

Drawing = TypeVar("Drawing")

FIGURES = BoundedQueue("figures", 16, "figures and reports")
"""The largest figures (8 panels, 4000 pixels wide) took 4.6 s each on a busy machine; typical ones take much less."""


async def draw_in_queue(request: Request, draw: Callable[[], Drawing]) -> Drawing:
    """Run `draw` in the queue and return its result. It opens its own session, so that waiting requests hold none.

    matplotlib draws one figure at a time in any case. If each waiting request held a thread, a connection and a
    concurrency slot, about 40 figures would block all other requests.

    Raises:
        Unavailable: the queue is full.
    """
    drawing = FIGURES.submit(draw)
    request.state.release_turn()
    return await asyncio.wrap_future(drawing)
