"""Every page: accessible, usable at any width, in both color schemes and by keyboard, without other hosts."""

import os
import re
import signal
from typing import Literal

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.acceptance.lab import JOB, LONG, RunningWorker
from tests.browser.conftest import Visit
from tests.browser.test_comparisons import comparison
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

UNKNOWN_ID = "01a00000-0000-7000-8000-000000000000"
HEADINGS = {
    "/": "Overview",
    "/jobs": "Jobs",
    "/jobs/new": "New job",
    "/comparisons": "Comparisons",
    "/comparisons/new": "Compare optimizers",
    "/leaderboard": "Leaderboard",
    "/data": "Data sets",
    "/code": "Code",
    "/keys": "Keys",
}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
Scheme = Literal["light", "dark"]
DISPLAYS: tuple[tuple[Scheme, int], ...] = (("light", 400), ("dark", 1600))
# Figures away from the window are drawn before printing.
DRAWN = """
() => dispatchEvent(new Event('beforeprint')) &&
      [...document.querySelectorAll('.plot')].every(plot => plot.data || plot.querySelector('.nothing')) &&
      !document.querySelector('.waiting') && document.querySelector('main h1') !== null
"""
FOLLOWS_SCHEME = """
() => dispatchEvent(new Event('beforeprint')) && [...document.querySelectorAll('.plot')].every(plot => !plot.layout ||
  plot.layout.font.color === getComputedStyle(document.documentElement).getPropertyValue('--muted').trim())
"""


@pytest.fixture(scope="module")
def addresses(stage: Stage, worker: RunningWorker) -> list[str]:
    """Every page, of a service with a finished comparison and a running job."""
    comparison_id = stage.client.post("/v1/comparisons", json=comparison("for every page")).json()["id"]
    until(lambda: stage.client.get(f"/v1/comparisons/{comparison_id}").json()["status"] == "succeeded")
    job = stage.lab.submit(LONG)
    stage.lab.wait_until_training(job)
    for process in worker.training():  # it would use a core as long as these tests run
        os.kill(process, signal.SIGSTOP)
    return [
        *HEADINGS,
        f"/comparisons/{comparison_id}",
        f"/jobs/{job}",
        f"/jobs/{job}?tab=environment",
        "/jobs/nonsense",
    ]


def open_drawn(visitor: Visitor, address: str) -> Page:
    """Open a page and wait until its figures are drawn."""
    page = visitor.open(address)
    until(lambda: page.evaluate(DRAWN))
    return page


class TestEmptyStates:
    """Pages of an empty database; these tests run before those that submit jobs."""

    def test_shows_empty_state(self, visitor: Visitor, subtests: pytest.Subtests) -> None:
        for address, message in [
            ("/", "No jobs yet"),
            ("/jobs", "No jobs yet"),
            ("/jobs?optimizer=adam", "No matching jobs"),
            ("/comparisons", "No comparisons yet"),
            ("/leaderboard", "No finished runs"),
            ("/data", "No uploaded data sets yet"),
            ("/code", "No uploaded code yet"),
        ]:
            with subtests.test(address):
                expect(visitor.open(address).get_by_text(message)).to_be_visible()


class TestNotFound:
    @pytest.mark.parametrize("kind", ["jobs", "comparisons"])
    def test_unknown_id_shows_not_found(self, visitor: Visitor, kind: str) -> None:
        visitor.allow_status(404, f"/v1/{kind}/{UNKNOWN_ID}")
        page = visitor.open(f"/{kind}/{UNKNOWN_ID}")
        expect(page.get_by_role("alert")).to_contain_text(UNKNOWN_ID)

    def test_unknown_page_links_to_overview(self, visitor: Visitor) -> None:
        page = visitor.open("/jobs/nonsense")
        expect(page.get_by_role("alert")).to_contain_text("Page not found")
        page.get_by_role("link", name="Go to the overview").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


class TestSecurity:
    def test_content_security_policy_allows_own_files_only(self, stage: Stage) -> None:
        response = httpx2.get(f"{stage.url}/", trust_env=False)
        directives = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["script-src"] == "'self'"
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert directives["frame-ancestors"] == "'none'"
        assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", response.text)
        assert re.findall(r"(?:src|href)=\"(?!/|#)", response.text) == []


class TestKeyboard:
    def test_shortcuts_open_pages(self, visitor: Visitor) -> None:
        page = visitor.open("/")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.keyboard.press("g")
        page.keyboard.press("j")
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        page.keyboard.press("/")
        expect(page.get_by_label("Search")).to_be_focused()
        page.keyboard.type("n")  # in a field, no shortcut
        expect(page).to_have_url(re.compile("search=n"))
        page.get_by_label("Search").blur()
        page.keyboard.press("n")
        expect(page.get_by_role("heading", name="New job")).to_be_visible()

    def test_tab_and_enter_follow_menu(self, visitor: Visitor) -> None:
        page = visitor.open("/")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        for _ in range(4):  # the brand, then the menu
            page.keyboard.press("Tab")
        comparisons = page.get_by_role("link", name="Comparisons", exact=True)
        expect(comparisons).to_be_focused()
        assert comparisons.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Comparisons", exact=True)).to_be_visible()

    def test_arrow_keys_select_tabs(self, visitor: Visitor, addresses: list[str]) -> None:
        job_page = re.compile(r"/jobs/[0-9a-f-]{36}")
        page = visitor.open(next(address for address in addresses if job_page.fullmatch(address)))
        page.get_by_role("tab", name="Curves").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Spec")).to_be_focused()
        expect(page.get_by_role("tabpanel")).to_contain_text('"optimizer"')
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("tab", name="Files")).to_have_attribute("aria-selected", "true")

    def test_focus_survives_live_update(self, visitor: Visitor, stage: Stage, addresses: list[str]) -> None:
        page = visitor.open("/jobs")
        first = page.get_by_role("checkbox", name=re.compile("Select job")).first
        box = page.get_by_label(first.get_attribute("aria-label") or "", exact=True)
        box.focus()
        new_job = stage.client.post("/v1/jobs", json=JOB).json()["id"]
        expect(page.get_by_label(f"Select job {new_job[-8:]}")).to_be_visible()  # the list was redrawn
        expect(box).to_be_focused()


def test_pages_pass_axe(visit: Visit, addresses: list[str]) -> None:
    """In both color schemes; every second page is opened in the dark one, and changes to the light one."""
    visitor, signed_out = visit(), visit(key=None)
    severe: list[str] = []
    for number, (user, address) in enumerate([(signed_out, "/"), *((visitor, address) for address in addresses)]):
        first, second = DISPLAYS if number % 2 else DISPLAYS[::-1]
        show(user.page, *first)
        severe += problems(open_drawn(user, address), address, *first)
        show(user.page, *second)
        until(lambda page=user.page: page.evaluate(FOLLOWS_SCHEME))
        severe += problems(user.page, address, *second)
    assert not severe, "\n".join(severe)
    for heading, display in zip(("Keys", "Jobs"), DISPLAYS, strict=True):
        show(visitor.page, *display)
        visitor.page.get_by_role("navigation", name="Pages").get_by_role("link", name=heading).click()
        expect(visitor.page.get_by_role("heading", name=heading, exact=True)).to_be_visible()


def test_figures_are_drawn_when_scrolled_to_or_printed(visitor: Visitor, addresses: list[str]) -> None:
    visitor.page.set_viewport_size({"width": 400, "height": 900})
    page = visitor.open(next(address for address in addresses if re.match("/comparisons/.{36}", address)))
    figures = page.locator(".plot:visible")
    is_drawn = "plot => plot.data !== undefined"
    until(lambda: page.evaluate("window.Plotly && document.querySelectorAll('.plot').length"))
    assert not figures.first.evaluate(is_drawn)
    figures.first.scroll_into_view_if_needed()
    until(lambda: figures.first.evaluate(is_drawn))
    assert not figures.last.evaluate(is_drawn)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert figures.last.evaluate(is_drawn)


def show(page: Page, scheme: Scheme, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})


def problems(page: Page, address: str, scheme: Scheme, width: int) -> list[str]:
    """Return what axe reports; fail if the page stays wider than the window or has the other scheme's colors."""
    until(lambda: page.evaluate("document.documentElement.scrollWidth") <= width)  # figures follow a new width later
    background, foreground = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (brightness(background) < brightness(foreground)) == (scheme == "dark"), address
    return violations(page, f"{address}, {scheme}, {width} pixels")


def violations(page: Page, address: str) -> list[str]:
    """Return the serious and critical violations that axe reports; print all of them."""
    severe = []
    for violation in Axe().run(page, options=RULES).response["violations"]:
        nodes = "; ".join(
            f"{node['target']} {node['any'][0]['message'] if node['any'] else ''}" for node in violation["nodes"][:3]
        )
        line = f"{address}: {violation['impact']}: {violation['id']}: {nodes}"
        print(line)
        if violation["impact"] in ("serious", "critical"):
            severe.append(line)
    return severe


def brightness(color: str) -> int:
    return sum(int(part) for part in color[4:-1].split(","))
