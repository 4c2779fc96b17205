"""Budgets per address and user for refused requests and static files; turns per user."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooMany
from service.specs.text import counted
from service.web.problem_details import respond

MAX_LEVELS = 10_000
"""Addresses and users whose budgets are kept; beyond that, those that were used longest ago are full again."""
UNIT_BYTES = 65_536
"""Size of a response that costs one unit."""


@dataclass
class _Level:
    """Units that are left at a time, in seconds."""

    left: float
    at: float


class Budget:
    """Units per address or user, refilled steadily.

    Args:
        units: capacity.
        per_second: units that come back.
    """

    def __init__(self, units: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._units, self._per_second, self._clock = units, per_second, clock
        self._levels: OrderedDict[Hashable, _Level] = OrderedDict()

    def refill(self) -> None:
        """Forget what was spent."""
        self._levels.clear()

    def wait_seconds(self, holder: Hashable) -> float:
        """Seconds until there is a unit; 0 if there is one now."""
        return max(0.0, (1 - self._level(holder).left) / self._per_second)

    def spend(self, holder: Hashable, units: float) -> None:
        """Take units, also more than are left."""
        self._level(holder).left -= units

    def _level(self, holder: Hashable) -> _Level:
        now = self._clock()
        level = self._levels.setdefault(holder, _Level(self._units, now))
        self._levels.move_to_end(holder)
        if len(self._levels) > MAX_LEVELS:
            self._levels.popitem(last=False)
        level.left = min(self._units, level.left + (now - level.at) * self._per_second)
        level.at = now
        return level


def is_static(scope: Scope) -> bool:
    """Whether the request is for a page or a file, which needs no key, no thread and no connection to the database."""
    return not scope["path"].startswith("/v1/") and scope["path"] not in ("/healthz", "/readyz")


def client_address(scope: Scope) -> str:
    """The address of the client; empty for a unix socket."""
    return str(scope["client"][0]) if scope.get("client") else ""


class Budgets:
    """Budgets of refused requests and of pages and files.

    A request without a valid key costs its address one unit; an upload that is answered with 429 costs its user one. A
    page or file costs its address one unit and another per 64 kB. Users are not affected by others at their address,
    except in pages and files.

    Args:
        user_of: the user of a value of `Authorization`, if it was valid the last time.
    """

    def __init__(self, user_of: Callable[[str | None], Hashable | None]) -> None:
        self.user_of = user_of
        self.refusals = Budget(units=60, per_second=5)
        self.files = Budget(units=4_000, per_second=200)
        self.has_refused_key = False
        """Whether a request with an unknown key was refused, which may be a key made meanwhile."""

    def refill(self) -> None:
        """Forget what was spent."""
        for budget in (self.refusals, self.files):
            budget.refill()

    def refusal(self, address: str, authorization: str | None, *, is_upload: bool) -> TooMany | None:
        """Why a request to the API is refused; None if its budget has a unit."""
        user = self.user_of(authorization)
        if user is not None:
            wait = self.refusals.wait_seconds(user) if is_upload else 0
            return _too_many("refused uploads of this user", wait)
        error = _too_many("requests without a valid API key from this address", self.refusals.wait_seconds(address))
        self.has_refused_key |= error is not None and authorization is not None
        return error

    def refusal_of_file(self, address: str) -> TooMany | None:
        """Why a request for a page or file is refused; None if its budget has a unit."""
        return _too_many("pages and files from this address", self.files.wait_seconds(address))


def _too_many(what: str, wait_seconds: float) -> TooMany | None:
    seconds = math.ceil(wait_seconds)
    return TooMany(f"too many {what}; try again in {counted(seconds, 'second')}", seconds) if seconds > 0 else None


class BudgetLimit:
    """Answers 429, without a thread or a connection, to requests whose budget is used up, and counts the others.

    Args:
        app: the application.
        budgets: of the application.
        streaming: routes of uploads, each as "METHOD /path".
    """

    def __init__(self, app: ASGIApp, budgets: Budgets, streaming: frozenset[str]) -> None:
        self.app = app
        self.budgets = budgets
        self.streaming = streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count what it costs."""
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/readyz"):
            await self.app(scope, receive, send)
            return
        address = client_address(scope)
        if is_static(scope):
            error = self.budgets.refusal_of_file(address)

            def cost(message: Message) -> None:
                size = len(message.get("body", b"")) / UNIT_BYTES
                self.budgets.files.spend(address, 1 if message["type"] == "http.response.start" else size)
        else:
            authorization = Headers(scope=scope).get("Authorization")
            is_upload = f"{scope['method']} {scope['path']}" in self.streaming
            error = self.budgets.refusal(address, authorization, is_upload=is_upload)
            user = self.budgets.user_of(authorization)  # before the request, which may forget the key

            def cost(message: Message) -> None:
                status = message.get("status")
                if status == 401:
                    self.budgets.refusals.spend(address, 1)
                elif status == 429 and is_upload and user is not None:
                    self.budgets.refusals.spend(user, 1)

        if error is not None:
            await respond(Request(scope), error)(scope, receive, send)
            return

        async def send_and_count(message: Message) -> None:
            cost(message)
            await send(message)

        await self.app(scope, receive, send_and_count)


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
