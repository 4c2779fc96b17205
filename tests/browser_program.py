"""The browser of the tests: Debian's Chromium, which `make tools` installs.

Its headless shell is preferred: it takes 0.6 of the CPU time of the whole browser, which also prepares windows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PROGRAMS = ("chromium-headless-shell", "chromium")
CHROMIUM = Path(next(filter(None, map(shutil.which, PROGRAMS)), PROGRAMS[0]))
INSTALL = f"this needs Debian's Chromium: apt-get install {PROGRAMS[0]}"
# Without these, Chromium sends requests to its vendor's hosts.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-site-isolation-trials",  # fewer processes, for all pages are of one site
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium, until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
