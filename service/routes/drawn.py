"""What is drawn for whoever asks: by one thread, without a session, and outside the turns of the other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request

from service import keys
from service.db import transaction
from service.errors import Unavailable
from service.models import User

Drawing = TypeVar("Drawing")

MOST_WAITING = 16
"""For the thread, with the one that it draws for. The largest figures (eight panels, 4000 pixels wide) were drawn in
4.6 s each on a busy machine, usual ones much faster."""

_artist = ThreadPoolExecutor(1, thread_name_prefix="artist")
_seats = BoundedSemaphore(MOST_WAITING)


def viewer(authorization: Annotated[str | None, Header()] = None) -> User:
    """The user whose API key came with the request; no session is open while it waits for its drawing."""
    with transaction() as session:
        return keys.owner(session, authorization)


Viewer = Annotated[User, Depends(viewer)]


async def drawn(request: Request, draw: Callable[[], Drawing]) -> Drawing:
    """What `draw` makes, which reads its data in a session of its own: of those who wait, nobody's are in memory.

    matplotlib draws one figure at a time in any case. With a thread, a connection and a turn for each who waits, some
    forty figures would leave none of these to anybody else.

    Raises:
        Unavailable: too many wait already.
    """
    if not _seats.acquire(blocking=False):
        raise Unavailable(f"{MOST_WAITING} figures and pages wait to be drawn already; try again in a few seconds")
    request.state.end_turn()
    drawing = _artist.submit(draw)
    drawing.add_done_callback(lambda _: _seats.release())
    return await asyncio.wrap_future(drawing)
