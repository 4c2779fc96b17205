"""What is drawn for whoever asks: one after the other, without a session, and outside the turns of other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from service.web.bounded_queue import Line

Drawing = TypeVar("Drawing")

LINE = Line("artist", 16, "figures and pages wait to be drawn")
"""The largest figures (eight panels, 4000 pixels wide) were drawn in 4.6 s each on a busy machine, usual ones much
faster."""


async def drawn(request: Request, draw: Callable[[], Drawing]) -> Drawing:
    """What `draw` makes, which reads its data in a session of its own: of those who wait, nobody's are in memory.

    matplotlib draws one figure at a time in any case. With a thread, a connection and a turn for each who waits, some
    forty figures would leave none of these to anybody else.

    Raises:
        Unavailable: too many wait already.
    """
    drawing = LINE.put(draw)
    request.state.end_turn()
    return await asyncio.wrap_future(drawing)
