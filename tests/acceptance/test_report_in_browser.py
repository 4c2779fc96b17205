"""A report file in a browser without network access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from service.reports.rendering import Report, render
from tests.browser_program import CHROMIUM, INSTALL, chromium
from tests.unit.service.reports.studies import TASKS, StudyData, study
from tests.unit.service.reports.unfinished import unfinished_answer

LONG = "an optimizer whose label is as long as labels are allowed to be.."
CASES: dict[str, Callable[[], StudyData]] = {
    "usual": lambda: study(diverged={(1, 3): 1}),
    "twelve": lambda: study(
        optimizers=[
            {"name": "adam", "params": {"lr": 0.0001 * (number + 1)}, "label": label}
            for number, label in enumerate([LONG[:63] + "1", LONG[:63] + "2", "优化器", "x_" * 32, *"abcdefgh"])
        ],
        tasks=TASKS[:1],
        diverged={(0, 5): 1},
    ),
    "loss": lambda: study(metric="test_loss", seeds=6, diverged={(0, 1): 2}),
    "waiting": lambda: StudyData(unfinished_answer()),
}

# Elements that are hidden or at most 5 pixels wide or high.
HIDDEN = """
() => [...document.querySelectorAll('h1, h2, h3, figure h4, svg.plot, svg.swatch, table, figcaption')]
  .filter(element => {
    const box = element.getBoundingClientRect();
    const isVisible = element.checkVisibility({visibilityProperty: true, opacityProperty: true});
    return !isVisible || box.width <= 5 || box.height <= 5;
  })
  .map(element => element.outerHTML.slice(0, 80))
"""
# Texts of a figure that overlap or extend beyond its edge, by more than a pixel.
CLASHES = """
() => [...document.querySelectorAll('svg.plot')].flatMap(plot => {
  const frame = plot.getBoundingClientRect();
  const boxes = [...plot.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const out = boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1 ||
                                        box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  const over = boxes.flatMap(([one, a], index) => boxes.slice(index + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5).map(([other]) => `${one} on ${other}`));
  const name = plot.querySelector('title').textContent;
  return [...out.map(([text]) => `${name}: ${text} is cut`), ...over.map(text => `${name}: ${text}`)];
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM.exists(), INSTALL
    with chromium() as browser:
        yield browser


@cache
def report_of(case: str) -> Report:
    """The report of a case, rendered once."""
    made = CASES[case]()
    return render("html", made.answer, made.curves)


@pytest.fixture(scope="module", params=CASES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on disk."""
    report = report_of(request.param)
    path = tmp_path_factory.mktemp("reports") / report.file_name
    path.write_text(report.body, encoding="utf-8")
    return path


class OpenedReport:
    """A page, with its requests and its messages on the console."""

    def __init__(self, context: BrowserContext, file: Path) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        self.page.goto(file.as_uri(), wait_until="load")

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(scope="module", params=[(375, "dark"), (1280, "light")], ids=lambda param: f"{param}")
def opened(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Iterator[OpenedReport]:
    width, scheme = request.param
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True) as context:
        yield OpenedReport(context, file)


class TestOpening:
    def test_report_requests_no_other_file_and_fits_the_window(self, opened: OpenedReport, file: Path) -> None:
        assert opened.requests == [file.as_uri()]
        assert opened.messages == []
        assert opened("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def test_all_elements_are_visible(self, opened: OpenedReport) -> None:
        assert opened.page.locator("h1").count() == 1
        assert opened(HIDDEN) == []

    def test_texts_of_figures_do_not_overlap(self, opened: OpenedReport) -> None:
        assert opened(CLASHES) == []

    def test_colours_follow_the_scheme(self, opened: OpenedReport) -> None:
        dark = opened("matchMedia('(prefers-color-scheme: dark)').matches")
        background, foreground = opened(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        brightness = [sum(int(part) for part in colour[4:-1].split(",")) for colour in (background, foreground)]
        assert (brightness[0] < brightness[1]) == dark


def test_prints_on_white_without_losing_columns(browser: Browser, file: Path) -> None:
    width = 703  # an A4 page less its margins
    with browser.new_context(viewport={"width": width, "height": 1000}, color_scheme="dark", offline=True) as context:
        opened = OpenedReport(context, file)
        opened.page.emulate_media(media="print")
        assert opened("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert opened("document.documentElement.scrollWidth") <= width
        assert opened.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
