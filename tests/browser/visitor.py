"""A browser that visits the dashboard, and the API that serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.acceptance.lab import Api, Lab

CONNECTION_ERRORS = (
    "net::ERR_FAILED",
    "net::ERR_CONNECTION_REFUSED",
    "net::ERR_INCOMPLETE_CHUNKED_ENCODING",
    "net::ERR_CONNECTION_RESET",
)
# With `storage_state`, Playwright would open a page to write it, and a visit would take a fifth more CPU time.
STORE_ONCE = """
if (!sessionStorage.getItem("stored")) {
  sessionStorage.setItem("stored", "yes");
  localStorage.setItem("kotrain.key", %s);
}
"""
FIGURES = """
() => Object.fromEntries([...document.querySelectorAll('figure.chart')].map(figure => [
  figure.querySelector('h3').textContent,
  (figure.querySelector('.plot').data ?? []).map(({name, x, y}) => ({name, x: [...x], y: [...y]}))]))
"""


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
    """A browser with its own profile, the URLs it requested, and the errors it logged.

    Args:
        key: in the local storage from an earlier visit; None for a first visit.
    """

    browser: Browser
    url: str
    key: str | None = None
    width: int = 1280
    scheme: str = "light"
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _allowed_statuses: list[tuple[int, str]] = field(default_factory=list)
    _allowed_texts: list[str] = field(default_factory=list)
    _is_api_down: bool = False

    def __post_init__(self) -> None:
        self.context = self.browser.new_context(
            viewport={"width": self.width, "height": 900},
            color_scheme=self.scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",  # frames of an animation take processor time from everything else
        )
        self.context.set_default_timeout(20_000)
        self.context.on("console", self._on_console)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page: Page = self.context.new_page()
        if self.key:
            self.page.add_init_script(STORE_ONCE % json.dumps(self.key))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        address, text = message.location["url"].removeprefix(self.url), message.text
        if self._is_api_down and any(error in text for error in CONNECTION_ERRORS):
            return
        if any(allowed in text for allowed in self._allowed_texts):
            return
        if any(f"status of {status} " in text and address.startswith(path) for status, path in self._allowed_statuses):
            return
        self.errors.append(f"{message.type} at {address}: {text}")

    def allow_message(self, text: str) -> None:
        """Allow this text in the console: the test provokes it."""
        self._allowed_texts.append(text)

    def allow_status(self, status: int, path: str) -> None:
        """Allow this status for requests below `path`: the test provokes it."""
        self._allowed_statuses.append((status, path))

    @contextmanager
    def without_the_api(self) -> Iterator[None]:
        """Allow connection errors in the console within the block."""
        self._is_api_down = True
        yield
        self.wait_for_messages()
        self._is_api_down = False

    def wait_for_messages(self) -> None:
        """Wait until the browser's pending events have arrived."""
        self.page.evaluate("() => 1")

    def open(self, address: str = "/") -> Page:
        self.page.goto(self.url + address)
        return self.page

    def figures(self) -> dict[str, list[dict[str, Any]]]:
        """The plotted traces of each figure, by its title."""
        figures: dict[str, list[dict[str, Any]]] = self.page.evaluate(FIGURES)
        return figures

    def close(self) -> None:
        """Close the browser; fail if it logged errors, requested another host, or shows the key."""
        self.wait_for_messages()
        hosts = [url for url in self.requests if not url.startswith((f"{self.url}/", f"blob:{self.url}/", "data:"))]
        keys = [text for text in (*self.requests, self.page.url, self.page.content()) if self.key and self.key in text]
        self.context.close()
        assert not self.errors, self.errors
        assert not hosts, hosts
        assert not keys, "the key is in an address or on the page"
