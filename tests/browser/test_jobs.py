"""A job from the form to its end, with a real worker: plan, curves as they grow, cancel, retry, a variation."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.lab import JOB, LONG
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("worker")
WATCHED = LONG | {"log_every_steps": 100}
JOB_PAGE = re.compile(r"/jobs/[0-9a-f-]{36}")


@pytest.fixture
def long_job(stage: Stage):
    """A job that trains until the test ends."""
    job_id = stage.lab.submit(WATCHED)
    yield job_id
    stage.client.post(f"/v1/jobs/{job_id}/cancel")
    stage.lab.ended(job_id)


def points(visitor: Visitor, figure: str = "Loss") -> list[float]:
    """The x values that the first trace of a figure shows."""
    found = visitor.figures().get(figure)
    return found[0]["x"] if found else []


def roughness(values: list[float]) -> float:
    """How far a curve goes up and down in all."""
    return sum(abs(after - before) for before, after in pairwise(values))


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Really cancel?").click()


class TestForm:
    def test_from_the_form_to_the_result(self, visitor: Visitor, stage: Stage) -> None:
        page = visitor.open("/jobs/new")
        plan = page.locator(".beside")
        expect(plan.get_by_role("heading", name="What will run")).to_be_visible()
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        page.get_by_label("Learning rate", exact=True).fill("0.02")
        page.get_by_label("Budget", exact=True).fill("2")
        expect(plan.locator("pre").last).to_contain_text('"lr": 0.02')
        expect(plan.locator("pre").last).to_contain_text('"epochs": 2')
        page.get_by_role("button", name="Submit").click()
        expect(page).to_have_url(JOB_PAGE)
        expect(page.locator("h1")).to_contain_text("on digits, mlp")
        expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)
        expect(page.get_by_text("test accuracy", exact=True)).to_be_visible()
        spec = stage.lab.show(page.url.rpartition("/")[2])["spec"]
        assert (spec["optimizer"]["name"], spec["optimizer"]["params"]["lr"], spec["budget"]["epochs"]) == (
            "adam",
            0.02,
            2,
        )

    def test_a_wrong_value_is_named_at_its_field(self, visitor: Visitor, stage: Stage) -> None:
        visitor.expects(422, "/v1/jobs")
        page = visitor.open("/jobs/new")
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        field = page.get_by_label("Learning rate", exact=True)
        field.fill("-1")
        refused = stage.client.post("/v1/jobs", json=JOB | {"optimizer": {"name": "adam", "params": {"lr": -1}}}).json()
        words = refused["errors"][0]["detail"]
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(re.escape(words)))
        page.get_by_role("button", name="Submit").click()
        expect(field).to_be_focused()
        assert page.url.startswith(f"{stage.url}/jobs/new")
        field.fill("0.01")
        expect(field).not_to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("heading", name="What will run")).to_be_visible()

    def test_what_was_typed_is_in_the_address(self, visitor: Visitor) -> None:
        page = visitor.open("/jobs/new")
        page.get_by_label("Optimizer", exact=True).select_option("adam")
        page.get_by_label("Learning rate", exact=True).fill("0.5")
        page.wait_for_url(re.compile("spec=.*0\\.5"))
        page.reload()
        expect(page.get_by_label("Optimizer", exact=True)).to_have_value("adam")
        expect(page.get_by_label("Learning rate", exact=True)).to_have_value("0.5")


class TestWatching:
    def test_curves_grow_until_it_is_cancelled(self, visitor: Visitor, long_job: str) -> None:
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
        assert button.evaluate("button => button.same")  # else it would forget between two clicks that it asked
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")
        expect(button).to_have_count(0)

        page.get_by_role("tab", name="Log").click()
        expect(page.get_by_role("tabpanel")).to_contain_text("cancelled")
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("retry of")).to_be_visible()
        assert not page.url.endswith(long_job)
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")

    def test_how_curves_are_drawn_is_in_the_address(self, visitor: Visitor, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        until(lambda: len(points(visitor)) > 5)
        page.get_by_label("Smoothing").fill("0.8")
        page.get_by_label("Logarithmic").check()
        page.get_by_label("Along").select_option("time")
        assert {"smooth=0.8", "log=1", "by=time"} <= set(page.url.partition("?")[2].split("&"))
        page.reload()
        expect(page.get_by_label("Smoothing")).to_have_value("0.8")
        expect(page.get_by_label("Logarithmic")).to_be_checked()
        until(lambda: len(points(visitor)) > 5)
        (loss,) = (figure for figure in page.locator("figure.chart").all() if "Loss" in figure.inner_text())
        axes = loss.locator(".plot").evaluate("plot => [plot.layout.yaxis.type, plot.layout.xaxis.title.text]")
        assert axes == ["log", "training time, s"]
        raw, soft = (one["y"] for one in visitor.figures()["Loss"][:2])
        assert soft[0] == pytest.approx(raw[0])
        assert roughness(soft) < roughness(raw)

    def test_a_variation_starts_from_the_job(self, visitor: Visitor, stage: Stage, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        page.get_by_role("link", name="Submit a variation").click()
        expect(page.get_by_role("heading", name="A variation of a job")).to_be_visible()
        expect(page.get_by_label("Optimizer", exact=True)).to_have_value("adam")
        expect(page.get_by_label("Budget", exact=True)).to_have_value("10000000")
        page.get_by_label("Budget", exact=True).fill("30")
        page.get_by_label("Seed", exact=True).fill("7")
        expect(page.locator(".beside pre").last).to_contain_text('"seed": 7')
        page.get_by_role("button", name="Submit").click()
        expect(page).to_have_url(JOB_PAGE)
        expect(page).not_to_have_url(re.compile(long_job))
        spec = stage.lab.show(page.url.rpartition("/")[2])["spec"]
        assert spec == stage.lab.show(long_job)["spec"] | {"seed": 7, "budget": {"steps": 30, "epochs": None}} | {
            "budget": spec["budget"]
        }
        assert spec["budget"]["steps"] == 30

    def test_the_api_goes_and_comes_back(self, visitor: Visitor, stage: Stage, long_job: str) -> None:
        page = visitor.open(f"/jobs/{long_job}")
        until(lambda: len(points(visitor)) > 1)
        with visitor.without_the_api():
            stage.api.kill()
            banner = page.get_by_text("kotrain does not answer.")
            expect(banner).to_be_visible()
            expect(page.locator("figure.chart").first).to_be_visible()
            before = points(visitor)
            stage.api.start()
            expect(banner).to_be_hidden(timeout=20_000)
        until(lambda: max(points(visitor)) > max(before))
        cancel(page)
        expect(page.locator(".head .chip").first).to_contain_text("cancelled")
        stored = stage.lab.metrics(long_job)
        until(lambda: points(visitor) == stored["train_loss"]["steps"])  # none missing, none twice

    def test_a_page_that_opens_while_the_api_is_away(self, visitor: Visitor, stage: Stage) -> None:
        page = visitor.open("/jobs")
        expect(page.get_by_role("table")).to_be_visible()
        with visitor.without_the_api():
            stage.api.kill()
            page.get_by_role("link", name="Leaderboard").click()
            expect(page.get_by_role("alert")).to_be_visible()
            stage.api.start()
            expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible(timeout=20_000)


def test_many_at_once(visitor: Visitor, stage: Stage) -> None:
    ids = [stage.lab.submit(LONG, tags={"many": "yes"}) for _ in range(3)]
    page = visitor.open("/jobs?tag=many:yes")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Choose all shown").click()
    expect(page.get_by_text("3 jobs chosen")).to_be_visible()
    page.get_by_role("button", name="Cancel them").click()
    page.get_by_role("button", name="Really cancel 3?").click()
    expect(page.get_by_text("3 jobs cancelled or asked to stop")).to_be_visible()
    expect(page.locator("tbody .chip").filter(has_text="cancelled")).to_have_count(3, timeout=20_000)
    assert {stage.lab.ended(one)["status"] for one in ids} == {"cancelled"}
