"""A job from the form to its end, with a real worker: plan, live curves, cancel, retry and variation."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from service.metrics import write
from service.storage import database
from tests.acceptance.lab import JOB, LONG
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("worker")
WATCHED = LONG | {"log_every_steps": 100}
JOB_PAGE = re.compile(r"/jobs/[0-9a-f-]{36}")


@pytest.fixture
def long_job(stage: Stage) -> Iterator[str]:
    """A job that trains until the test ends."""
    job_id = stage.lab.submit(WATCHED)
    yield job_id
    stage.client.post(f"/v1/jobs/{job_id}/cancel")
    stage.lab.ended(job_id)


def points(visitor: Visitor) -> list[float]:
    """The plotted steps of the training loss."""
    traces = [trace["x"] for trace in visitor.figures().get("Loss", []) if trace["name"] == "train loss"]
    return traces[0] if traces else []


def roughness(values: list[float]) -> float:
    """The total variation of a curve."""
    return sum(abs(after - before) for before, after in pairwise(values))


def cancel(page: Page) -> None:
    # By keyboard: soon after a click at the same place, such as on "Retry", one would be the second of a double click.
    page.get_by_role("button", name="Cancel").press("Enter")
    page.get_by_role("button", name="Click again to cancel").click()


class TestForm:
    def test_job_from_form_to_result(self, visitor: Visitor, stage: Stage) -> None:
        page = visitor.open("/jobs/new")
        plan = page.locator(".beside")
        expect(plan.get_by_role("heading", name="Resolved spec")).to_be_visible()
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        page.get_by_label("Learning rate", exact=True).fill("0.02")
        page.get_by_label("Budget", exact=True).fill("2")
        expect(plan.locator("pre").first).to_contain_text('"lr": 0.02')
        expect(plan.locator("pre").first).to_contain_text('"epochs": 2')
        page.get_by_role("button", name="Submit").click()
        expect(page).to_have_url(JOB_PAGE)
        expect(page.locator("h1")).to_contain_text("on digits, mlp")
        expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)
        # The legend of the plot may show the same words.
        expect(page.get_by_role("term").filter(has_text="test accuracy")).to_be_visible()
        spec = stage.lab.show(page.url.rpartition("/")[2])["spec"]
        assert (spec["optimizer"]["name"], spec["optimizer"]["params"]["lr"]) == ("adam", 0.02)
        assert spec["budget"]["epochs"] == 2

    def test_shows_error_at_invalid_field(self, visitor: Visitor, stage: Stage) -> None:
        visitor.allow_status(422, "/v1/jobs")
        page = visitor.open("/jobs/new")
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        field = page.get_by_label("Learning rate", exact=True)
        field.fill("-1")
        invalid = JOB | {"optimizer": {"name": "adam", "params": {"lr": -1}}}
        detail = stage.client.post("/v1/jobs", json=invalid).json()["errors"][0]["detail"]
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(re.escape(detail)))
        page.get_by_role("button", name="Submit").click()
        expect(field).to_be_focused()
        assert page.url.startswith(f"{stage.url}/jobs/new")
        field.fill("0.01")
        expect(field).not_to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("heading", name="Resolved spec")).to_be_visible()

    def test_keeps_form_content_in_query(self, visitor: Visitor) -> None:
        page = visitor.open("/jobs/new")
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        page.get_by_label("Learning rate", exact=True).fill("0.5")
        page.wait_for_url(re.compile("spec=.*0\\.5"))
        page.reload()
        expect(page.get_by_label("Optimizer", exact=True)).to_have_value("adam")
        expect(page.get_by_label("Learning rate", exact=True)).to_have_value("0.5")


class TestJobPage:
    def test_curves_grow_until_job_is_cancelled(self, visitor: Visitor, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        until(lambda: len(points(visitor)) > 1)
        before = points(visitor)
        until(lambda: len(points(visitor)) > len(before))
        assert points(visitor)[: len(before)] == before
        expect(page.locator(".head .chip").first).to_contain_text("running")
        expect(page.get_by_role("progressbar", name="progress of the run")).to_be_visible()
        button = page.get_by_role("button", name="Cancel")
        button.evaluate("button => { button.same = true; }")
        until(lambda: len(points(visitor)) > len(before) + 1)
        assert button.evaluate("button => button.same")  # a new button would lose its confirmation
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")
        expect(button).to_have_count(0)

        page.get_by_role("tab", name="Log").click()
        expect(page.get_by_role("tabpanel")).to_contain_text("cancelled")
        with_zone = re.compile(r"^\d+ \w+ \d{4}, \d\d:\d\d:\d\d (UTC|GMT|[A-Z]+)")
        expect(page.get_by_role("tabpanel").locator("time").first).to_have_text(with_zone)
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("retry of")).to_be_visible()
        assert not page.url.endswith(long_job)
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")

    def test_keeps_plot_options_in_query(self, visitor: Visitor, short_job: str) -> None:
        page = visitor.open(f"/jobs/{short_job}")
        until(lambda: len(points(visitor)) > 5)
        page.get_by_label("Smoothing").fill("0.8")
        page.get_by_label("Logarithmic").check()
        page.get_by_label("x axis").select_option("time")
        assert {"smooth=0.8", "log=1", "by=time"} <= set(page.url.partition("?")[2].split("&"))
        page.reload()
        expect(page.get_by_label("Smoothing")).to_have_value("0.8")
        expect(page.get_by_label("Logarithmic")).to_be_checked()
        until(lambda: len(points(visitor)) > 5)
        (loss,) = (figure for figure in page.locator("figure.chart").all() if "Loss" in figure.inner_text())
        axes = loss.locator(".plot").evaluate("plot => [plot.layout.yaxis.type, plot.layout.xaxis.title.text]")
        assert axes == ["log", "time since start, s"]
        raw, smoothed = (trace["y"] for trace in visitor.figures()["Loss"][:2])
        assert smoothed[0] == pytest.approx(raw[0])
        assert roughness(smoothed) < roughness(raw)

    def test_double_click_does_not_cancel(self, visitor: Visitor, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        page.get_by_role("button", name="Cancel").dblclick()
        expect(page.get_by_role("button", name="Click again to cancel")).to_be_enabled()
        assert not [url for url in visitor.requests if url.endswith("/cancel")]

    def test_variation_starts_from_job(self, visitor: Visitor, stage: Stage, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        page.get_by_role("link", name="Submit a variation").click()
        expect(page.get_by_role("heading", name="Job variation")).to_be_visible()
        expect(page.get_by_label("Optimizer", exact=True)).to_have_value("adam")
        expect(page.get_by_label("Budget", exact=True)).to_have_value("10000000")
        page.get_by_label("Budget", exact=True).fill("30")
        page.get_by_label("Seed", exact=True).fill("7")
        expect(page.locator(".beside pre").first).to_contain_text('"seed": 7')
        page.get_by_role("button", name="Submit").click()
        expect(page).to_have_url(JOB_PAGE)
        expect(page).not_to_have_url(re.compile(long_job))
        spec = stage.lab.show(page.url.rpartition("/")[2])["spec"]
        assert spec == stage.lab.show(long_job)["spec"] | {"seed": 7, "budget": {"steps": 30, "epochs": None}} | {
            "budget": spec["budget"]
        }
        assert spec["budget"]["steps"] == 30

    def test_resumes_curves_after_api_restart(self, visitor: Visitor, stage: Stage, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        until(lambda: len(points(visitor)) > 1)
        with visitor.without_the_api():
            stage.api.kill()
            banner = page.get_by_text("kotrain is not responding.")
            expect(banner).to_be_visible()
            expect(page.locator("figure.chart").first).to_be_visible()
            before = points(visitor)
            stage.api.start()
            stage.api.ready()
            expect(banner).to_be_hidden(timeout=20_000)
        until(lambda: max(points(visitor)) > max(before))
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")
        stored = stage.lab.metrics(long_job)
        until(lambda: points(visitor) == stored["train_loss"]["steps"])  # no point is missing or repeated

    def test_page_loads_after_api_restart(self, visitor: Visitor, stage: Stage) -> None:
        page = visitor.open("/jobs")
        expect(page.get_by_role("table")).to_be_visible()
        with visitor.without_the_api():
            stage.api.kill()
            page.get_by_role("link", name="Leaderboard").click()
            expect(page.get_by_role("alert")).to_be_visible()
            stage.api.start()
            stage.api.ready()
            expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible(timeout=20_000)


class TestList:
    def test_click_survives_live_update(self, visitor: Visitor, long_job: str) -> None:
        page = visitor.open("/jobs?status=running")
        box = page.get_by_label(f"Select job {long_job[-8:]}")
        click_across_update(page, box)
        expect(box).to_be_checked()
        page.get_by_role("link", name="Overview").click()
        click_across_update(page, page.get_by_label("Workers").get_by_role("link", name=long_job[-8:]))
        expect(page).to_have_url(re.compile(long_job))

    def test_deselects_jobs_that_leave_list(self, visitor: Visitor, stage: Stage, long_job: str) -> None:
        page = visitor.open("/jobs?status=running")
        page.get_by_label(f"Select job {long_job[-8:]}").check()
        expect(page.get_by_text("1 job selected")).to_be_visible()
        stage.client.post(f"/v1/jobs/{long_job}/cancel")
        expect(page.get_by_text("Select all shown")).to_be_visible()
        expect(page.get_by_role("button", name="Cancel selected")).to_have_count(0)

    def test_shows_and_clears_filters_in_query(self, visitor: Visitor, short_job: str) -> None:
        page = visitor.open(f"/jobs?comparison={uuid4()}")
        expect(page.get_by_role("link", name="Runs of one comparison")).to_be_visible()
        expect(page.get_by_text("No matching jobs")).to_be_visible()
        page.get_by_role("button", name="Show jobs of all comparisons").click()
        row = page.locator(f"tr[data-key='{short_job}']")
        expect(row).to_be_visible()
        assert page.url.endswith("/jobs")

        visitor.open("/jobs?dataset=images/gone&user=bob")
        expect(page.get_by_label("Data set")).to_have_value("images/gone")
        page.get_by_role("button", name="Only my jobs").click()
        expect(page.get_by_label("User")).to_have_value("ada")
        page.get_by_role("button", name="Clear all filters").click()
        expect(page.get_by_label("Data set")).to_have_value("")
        expect(row).to_be_visible()
        assert page.url.endswith("/jobs")

    def test_shows_error_at_invalid_filter(self, visitor: Visitor, short_job: str) -> None:
        visitor.allow_status(422, "/v1/jobs")
        page = visitor.open("/jobs")
        row, tag = page.locator(f"tr[data-key='{short_job}']"), page.get_by_label("Tag")
        expect(row).to_be_visible()
        tag.fill("study")
        expect(tag).to_have_accessible_description("KEY:VALUE")
        expect(row).to_be_visible()
        tag.fill("st!udy:ko")
        expect(tag).to_have_accessible_description(re.compile("must be KEY:VALUE, with letters"))
        expect(row).to_be_visible()
        tag.fill("study:ko")
        expect(page.get_by_text("No matching jobs")).to_be_visible()
        expect(tag).not_to_have_attribute("aria-invalid", "true")


def click_across_update(page: Page, target: Locator) -> None:
    """Press the mouse, wait for the progress bar to change, and release it."""
    bar = page.get_by_role("progressbar").locator(".done").first
    target.hover()
    page.mouse.down()
    before = bar.get_attribute("style")
    expect(bar).not_to_have_attribute("style", before or "")
    page.mouse.up()


def test_cancels_selected_jobs(visitor: Visitor, stage: Stage) -> None:
    ids = [stage.lab.submit(LONG, tags={"many": "yes"}) for _ in range(3)]
    page = visitor.open("/jobs?tag=many:yes")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Select all shown").click()
    expect(page.get_by_text("3 jobs selected")).to_be_visible()
    page.get_by_role("button", name="Cancel selected").click()
    page.get_by_role("button", name="Click again to cancel 3 jobs").click()
    expect(page.get_by_text("3 jobs cancelled or asked to stop")).to_be_visible()
    expect(page.locator("tbody .chip").filter(has_text="cancelled")).to_have_count(3, timeout=20_000)
    assert {stage.lab.ended(job_id)["status"] for job_id in ids} == {"cancelled"}


# --- plots ---


@pytest.fixture(scope="module")
def short_job(stage: Stage, worker: object) -> str:
    """A finished job with a point of the training metrics for each step, and one of the others for each epoch."""
    job = stage.lab.submit(JOB | {"log_every_steps": 1, "eval_every_steps": 13})
    assert stage.lab.ended(job)["status"] == "succeeded"
    return job


def test_says_why_no_job_was_cancelled(visitor: Visitor, short_job: str) -> None:
    page = visitor.open("/jobs?status=succeeded")
    page.get_by_label(f"Select job {short_job[-8:]}", exact=True).check()
    page.get_by_role("button", name="Cancel selected").click()
    page.get_by_role("button", name="Click again to cancel 1 job").click()
    expect(page.get_by_text(f"No job was cancelled: job {short_job} has already succeeded.")).to_be_visible()


def test_limits_smoothing_in_query(visitor: Visitor, short_job: str, subtests: pytest.Subtests) -> None:
    for smooth, shown in [("5", "0.99"), ("1", "0.99"), ("-1", "0"), ("much", "0")]:
        with subtests.test(smooth):
            page = visitor.open(f"/jobs/{short_job}?smooth={smooth}")
            expect(page.get_by_label("Smoothing")).to_have_value(shown)
            until(lambda: visitor.figures().get("Loss"))
            # Only the training loss has more than 10 points: raw and, if smoothed, a second trace.
            curves = [trace["y"] for trace in visitor.figures()["Loss"] if len(trace["y"]) > 10]
            assert len(curves) == (1 if shown == "0" else 2)
            assert all(min(curves[0]) <= value <= max(curves[0]) for value in curves[-1])


def test_figures_say_what_they_leave_out(visitor: Visitor, stage: Stage) -> None:
    job = stage.lab.submit(JOB)
    assert stage.lab.ended(job)["status"] == "succeeded"
    curves = {"temperature": [0.0, -1.0], "velocity_energy": [math.nan, math.inf], "effective_rank": [2.0, 0.0]}
    with database.transaction() as session:
        write.append(session, [(UUID(job), {name: ([1, 2], values, [0.1, 0.2]) for name, values in curves.items()})])
    page = visitor.open(f"/jobs/{job}?log=1")

    def figure(title: str) -> Locator:
        return page.locator("figure.chart").filter(has=page.get_by_role("heading", name=title, exact=True))

    for title, text in [
        ("Gradient temperature", "A logarithmic axis needs a value above 0."),
        ("Velocity energy", "No value is finite."),
        ("Effective rank of the weights", "Values at or below 0 are not drawn, because the axis is logarithmic."),
    ]:
        figure(title).scroll_into_view_if_needed()
        expect(figure(title)).to_contain_text(text)
    assert visitor.figures()["Effective rank of the weights"][0]["y"] == [2, None]
    page.get_by_role("checkbox", name="Logarithmic").uncheck()
    figure("Effective rank of the weights").scroll_into_view_if_needed()
    expect(figure("Effective rank of the weights").locator("figcaption")).to_have_text("")
    figure("Gradient temperature").scroll_into_view_if_needed()
    expect(figure("Gradient temperature")).not_to_contain_text("needs a value above 0")


def test_zoom_survives_until_axis_changes(visitor: Visitor, short_job: str) -> None:
    page = visitor.open(f"/jobs/{short_job}")
    figure = page.locator("figure.chart").filter(has=page.get_by_role("heading", name="Loss", exact=True))
    until(lambda: visitor.figures().get("Loss"))
    whole = axes(figure)
    zoom(page, figure)
    until(lambda: axes(figure)["x"] != whole["x"])
    zoomed = axes(figure)
    assert width(zoomed["x"]) < 0.5 * width(whole["x"])

    page.get_by_label("Logarithmic").check()
    until(lambda: axes(figure)["kind"] == "log")
    assert axes(figure)["x"] == zoomed["x"]
    values = [value for trace in visitor.figures()["Loss"] for value in trace["y"]]
    low, high = axes(figure)["y"]
    assert 10**low <= min(values)
    assert 10**high >= max(values)

    page.get_by_label("x axis").select_option("time")
    until(lambda: axes(figure)["title"] == "time since start, s")
    last = max(value for trace in visitor.figures()["Loss"] for value in trace["x"])
    assert last <= axes(figure)["x"][1] < 2 * last


def zoom(page: Page, figure: Locator) -> None:
    """Drag over the middle of a figure."""
    area = figure.locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()


def axes(figure: Locator) -> dict[str, Any]:
    """The ranges, title and type of a figure's axes."""
    layout: dict[str, Any] = figure.locator(".plot").evaluate(
        "({layout: {xaxis: x, yaxis: y}}) => ({x: x.range, y: y.range, title: x.title.text, kind: y.type})"
    )
    return layout


def width(ends: list[float]) -> float:
    return ends[1] - ends[0]
