"""A browser on the dashboard, and the API process that serves it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.acceptance.lab import Lab
from tests.forked import Forked
from tests.waiting import until

AWAY = (
    "net::ERR_FAILED",
    "net::ERR_CONNECTION_REFUSED",
    "net::ERR_INCOMPLETE_CHUNKED_ENCODING",
    "net::ERR_CONNECTION_RESET",
)
FIGURES = """
() => Object.fromEntries([...document.querySelectorAll('figure.chart')].map(figure => [
  figure.querySelector('h3').textContent,
  (figure.querySelector('.plot').data ?? []).map(one => ({name: one.name, x: [...one.x], y: [...one.y]}))]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Api:
    """An API process that keeps its port over restarts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (until `end`)
        self.start()

    def start(self) -> None:
        self.process = Forked(
            *("service.commands", "api", "--port", str(self.port)),
            stdout=self._log,
            stderr=self._log,
        )
        until(lambda: self._answers() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", trust_env=False).is_success
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return os.pread(self._log.fileno(), 10**7, 0).decode()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


@dataclass
class Stage:
    """The API, and an administrator's key for it."""

    api: Api
    key: str

    def __post_init__(self) -> None:
        self.client = httpx2.Client(
            base_url=self.api.url, headers={"Authorization": f"Bearer {self.key}"}, trust_env=False, timeout=30
        )
        self.lab = Lab(self.client)

    @property
    def url(self) -> str:
        return self.api.url


@dataclass
class Visitor:
    """A browser with a profile of its own, its requests, and the errors it logged.

    Args:
        key: stored by an earlier visit; None for a first visit.
    """

    browser: Browser
    url: str
    key: str | None = None
    width: int = 1280
    scheme: str = "light"
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _refusals: list[tuple[int, str]] = field(default_factory=list)
    _forgiven: list[str] = field(default_factory=list)
    _may_be_away: bool = False

    def __post_init__(self) -> None:
        kept = [{"name": "kotrain.key", "value": self.key}] if self.key else []
        self.context = self.browser.new_context(
            viewport={"width": self.width, "height": 900},
            color_scheme=self.scheme,  # type: ignore[arg-type]
            storage_state={"cookies": [], "origins": [{"origin": self.url, "localStorage": kept}]},  # type: ignore[typeddict-item]
        )
        self.context.set_default_timeout(20_000)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page: Page = self.context.new_page()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        where = message.location["url"].removeprefix(self.url)
        if self._may_be_away and any(text in message.text for text in AWAY):
            return
        if any(text in message.text for text in self._forgiven):
            return
        if any(f"status of {status} " in message.text and where.startswith(path) for status, path in self._refusals):
            return
        self.errors.append(f"{message.type} at {where}: {message.text}")

    def forgives(self, text: str) -> None:
        """Allow this text in the console: the test provokes it."""
        self._forgiven.append(text)

    def expects(self, status: int, path: str) -> None:
        """Allow this status for requests below `path`: the test provokes it."""
        self._refusals.append((status, path))

    @contextmanager
    def without_the_api(self) -> Iterator[None]:
        """Allow connection errors in the console within the block."""
        self._may_be_away = True
        yield
        self.settle()
        self._may_be_away = False

    def settle(self) -> None:
        """Wait until pending messages of the browser have arrived."""
        self.page.evaluate("() => 1")

    def open(self, address: str = "/") -> Page:
        self.page.goto(self.url + address)
        return self.page

    def figures(self) -> dict[str, list[dict[str, Any]]]:
        """The plotted traces of each figure, by its title."""
        found: dict[str, list[dict[str, Any]]] = self.page.evaluate(FIGURES)
        return found

    def leave(self) -> None:
        """Close the browser; fail if it logged errors, requested another host, or shows the key."""
        self.settle()
        hosts = [url for url in self.asked if not url.startswith((f"{self.url}/", f"blob:{self.url}/", "data:"))]
        keys = [text for text in (*self.asked, self.page.url, self.page.content()) if self.key and self.key in text]
        self.context.close()
        assert not self.errors, self.errors
        assert not hosts, hosts
        assert not keys, "the key is in an address or on the page"
