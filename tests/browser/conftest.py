"""Fixtures of the browser tests: an API process, a worker for tests that need one, and browsers on the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from service.accounts import api_keys
from service.config import settings
from service.jobs import queue
from tests import tables
from tests.acceptance.lab import Api, RunningWorker, running_worker
from tests.browser.visitor import Stage, Visitor
from tests.browser_program import CHROMIUM, INSTALL, chromium

expect.set_options(timeout=20_000)  # machines may be busy
Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(INSTALL)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stage(browser: Browser, schema: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An API without jobs, and the administrator `ada`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        settings.cache_clear()
        tables.clear()
        queue.celery().control.purge()
        stage = Stage(Api().ready(), api_keys.create("ada", admin=True))
        yield stage
        stage.client.close()
        stage.api.end()
    settings.cache_clear()


@pytest.fixture(scope="module")
def worker(stage: Stage) -> Iterator[RunningWorker]:
    """A worker with two slots beside the API."""
    with running_worker() as worker:
        yield worker


@pytest.fixture
def visit(browser: Browser, stage: Stage) -> Iterator[Visit]:
    """Open browsers, by default of `ada` with her key stored; fail at the end if one of them logged an error."""
    visitors: list[Visitor] = []

    def open_browser(key: str | None = stage.key, **options: object) -> Visitor:
        visitors.append(Visitor(browser, stage.url, key, **options))  # type: ignore[arg-type]
        return visitors[-1]

    yield open_browser
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """`ada`, with a window of 1,280 pixels and the light color scheme."""
    return visit()
