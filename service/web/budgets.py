"""Budgets per address for refused keys and static files; turns per user."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooMany
from service.web.problem_details import respond

MAX_ADDRESSES = 10_000
"""Addresses whose budgets are kept; beyond that, those that were used longest ago are full again."""
UNIT_BYTES = 65_536
"""Size of a response that costs one unit."""


@dataclass
class _Level:
    """Units of an address that are left at a time, in seconds."""

    left: float
    at: float


class Budget:
    """Units per address, refilled steadily.

    Args:
        units: capacity.
        per_second: units that come back.
    """

    def __init__(self, units: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._units, self._per_second, self._clock = units, per_second, clock
        self._levels: OrderedDict[str, _Level] = OrderedDict()

    def wait_seconds(self, address: str) -> float:
        """Seconds until the address has a unit; 0 if it has one now."""
        return max(0.0, (1 - self._level(address).left) / self._per_second)

    def spend(self, address: str, units: float) -> None:
        """Take units, also more than are left."""
        self._level(address).left -= units

    def _level(self, address: str) -> _Level:
        now = self._clock()
        level = self._levels.setdefault(address, _Level(self._units, now))
        self._levels.move_to_end(address)
        if len(self._levels) > MAX_ADDRESSES:
            self._levels.popitem(last=False)
        level.left = min(self._units, level.left + (now - level.at) * self._per_second)
        level.at = now
        return level


def is_static(scope: Scope) -> bool:
    """Whether the request is for a page or a file, which needs no key, no thread and no connection to the database."""
    return not scope["path"].startswith("/v1/") and scope["path"] not in ("/healthz", "/readyz")


class AddressBudgets:
    """Answers 429 to addresses that have used up their budget of refused keys, or of pages and files.

    Each refused key costs a unit, each page or file one and another per 64 kB. Users whose key was valid before are
    not affected by others at their address.

    Args:
        app: the application.
        knows: whether the value of `Authorization` was valid the last time.
    """

    def __init__(self, app: ASGIApp, knows: Callable[[str | None], bool]) -> None:
        self.app = app
        self.knows = knows
        self.refusals = Budget(units=300, per_second=5)
        self.files = Budget(units=4_000, per_second=200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count what it costs."""
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/readyz"):
            await self.app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        budget = self.files if is_static(scope) else self.refusals
        wait = budget.wait_seconds(address)
        if wait > 0 and (budget is self.files or not self.knows(Request(scope).headers.get("Authorization"))):
            what = "pages and files" if budget is self.files else "requests without a valid API key"
            error = TooMany(f"too many {what} from this address; try again in some seconds", math.ceil(wait))
            await respond(Request(scope), error)(scope, receive, send)
            return

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start" and (budget is self.files or message["status"] == 401):
                budget.spend(address, 1)
            elif message["type"] == "http.response.body" and budget is self.files:
                budget.spend(address, len(message.get("body", b"")) / UNIT_BYTES)
            await send(message)

        await self.app(scope, receive, count)


class Turns:
    """A limited number of turns, given in rotation to those that wait: one with many requests delays only itself.

    Args:
        total: turns at a time.
        share: turns at a time of one user.
    """

    def __init__(self, total: int, share: int) -> None:
        self._free, self._share = total, share
        self._held: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, who: Hashable) -> None:
        """Wait for a turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given just before
                self.release(who)
            raise

    def release(self, who: Hashable) -> None:
        """End a turn."""
        self._free += 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        self._give()

    def _give(self) -> None:
        """Give free turns, one to each user that waits, then again."""
        while self._free and (entitled := [who for who in self._waiting if self._held[who] < self._share][:1]):
            who = entitled[0]
            turns = self._waiting[who]
            turn = turns.popleft()
            if turns:
                self._waiting.move_to_end(who)
            else:
                del self._waiting[who]
            if not turn.done():  # its request has not gone meanwhile
                self._free -= 1
                self._held[who] += 1
                turn.set_result(None)
