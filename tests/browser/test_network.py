"""Late and lost responses: pages drop the former and repeat the requests of the latter."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.acceptance.lab import JOB, LONG
from tests.browser.test_comparisons import comparison, ended
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("worker")
__all__ = ["ended"]  # a fixture
MAX_EVENTS = 2  # of a stream after the job's end; more requests are retries
OTHER_OPTIMIZERS = [{"name": "adam", "params": {"lr": 0.02}}, {"name": "sgd", "params": {"lr": 0.02}}]
Y_TITLE = "plot => plot.layout?.yaxis?.title?.text"


@contextmanager
def delayed(page: Page, pattern: str) -> Iterator[None]:
    """Hold matching requests until the block ends, then give the page time to use the late responses."""
    held: list[Route] = []
    page.route(pattern, lambda route: held.append(route))
    yield
    assert held
    for route in held:
        with page.expect_event("requestfinished", lambda request, url=route.request.url: request.url == url):
            route.continue_()
    page.unroute(pattern)
    page.evaluate("() => fetch('/healthz').then(answer => answer.text())")


@contextmanager
def unavailable(visitor: Visitor, path: str, after: int = 0) -> Iterator[Callable[[], int]]:
    """Answer matching requests after the first `after` with 503; yield a function that counts these."""
    visitor.allow_status(503, path.partition("?")[0])
    refused: list[str] = []
    served: list[str] = []

    def refuse(route: Route) -> None:
        if len(served) < after:
            served.append(route.request.url)
            route.continue_()
            return
        refused.append(route.request.url)
        route.fulfill(
            status=503, content_type="application/problem+json", body='{"title": "The database is unavailable."}'
        )

    def count() -> int:
        visitor.wait_for_messages()  # Playwright handles requests only during calls
        return len(refused)

    visitor.page.route(f"**{path}", refuse)
    yield count
    visitor.page.unroute(f"**{path}")


def plot(page: Page, title: str) -> Locator:
    figure = page.locator("figure.chart").filter(has=page.get_by_role("heading", name=title, exact=True))
    return figure.locator(".plot")


class TestLateResponses:
    @pytest.mark.usefixtures("ended")
    def test_drops_late_leaderboard(self, visitor: Visitor) -> None:
        page = visitor.open("/leaderboard")
        board = page.get_by_role("table").filter(has_text="sgd")
        expect(board).to_contain_text("%")
        by_accuracy = board.inner_text()
        with delayed(page, "**/v1/leaderboard?*metric=val_loss*"):
            page.get_by_label("Metric").select_option("val_loss")
            page.get_by_label("Metric").select_option("test_accuracy")
            expect(board).to_contain_text("%")
        assert board.inner_text() == by_accuracy

    def test_drops_late_curves(self, visitor: Visitor, ended: str) -> None:
        page = visitor.open(f"/comparisons/{ended}")
        curves = plot(page, "Curves")
        until(lambda: curves.evaluate(Y_TITLE) == "validation accuracy, %")
        with delayed(page, "**/curves?*metric=train_loss*"):
            page.get_by_label("Metric of the curves").select_option("train_loss")
            page.get_by_label("Metric of the curves").select_option("val_loss")
            until(lambda: curves.evaluate(Y_TITLE) == "validation loss")
        assert curves.evaluate(Y_TITLE) == "validation loss"


class TestLostResponses:
    def test_retries_last_fetch_of_job(self, visitor: Visitor, stage: Stage) -> None:
        job = stage.lab.submit(LONG)
        page = visitor.open(f"/jobs/{job}")
        chip = page.locator(".head .chip").first
        expect(chip).to_contain_text("running")
        expect(page.locator(".head .live")).to_have_text("live")
        with unavailable(visitor, f"/v1/jobs/{job}") as refusals:
            stage.client.post(f"/v1/jobs/{job}/cancel")
            stage.lab.ended(job)
            refusals_at_end = refusals()
            until(lambda: refusals() > refusals_at_end + MAX_EVENTS)
            expect(chip).to_contain_text("running")
        expect(chip).to_contain_text("cancelled")
        expect(page.get_by_text("kotrain is not responding.")).to_be_hidden()
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)

    def test_retries_last_fetch_of_comparison(self, visitor: Visitor, stage: Stage) -> None:
        comparison_id = stage.client.post(
            "/v1/comparisons", json=comparison("lost", optimizers=OTHER_OPTIMIZERS)
        ).json()["id"]
        with unavailable(visitor, f"/v1/comparisons/{comparison_id}", after=1) as refusals:
            page = visitor.open(f"/comparisons/{comparison_id}")
            chip = page.locator(".head .chip")
            expect(chip).to_contain_text("running")
            until(lambda: stage.client.get(f"/v1/comparisons/{comparison_id}").json()["status"] == "succeeded")
            refusals_at_end = refusals()
            until(lambda: refusals() > refusals_at_end + MAX_EVENTS)
            expect(chip).to_contain_text("running")
        expect(chip).to_contain_text("succeeded")

    def test_retries_curves(self, visitor: Visitor, ended: str) -> None:
        with unavailable(visitor, f"/v1/comparisons/{ended}/curves?*") as refusals:
            page = visitor.open(f"/comparisons/{ended}")
            until(lambda: refusals() > 3)  # three figures request them
        until(lambda: visitor.figures().get("Curves"))
        expect(plot(page, "Scores of runs").locator("svg").first).to_be_visible()

    def test_retries_plotly(self, visitor: Visitor, stage: Stage) -> None:
        job = stage.lab.submit(JOB)
        stage.lab.ended(job)
        with unavailable(visitor, "/dashboard/plotly.js"):
            page = visitor.open(f"/jobs/{job}")
            expect(plot(page, "Loss")).to_contain_text("Plotly could not be loaded")
        expect(plot(page, "Loss").locator("svg").first).to_be_visible()
        assert visitor.figures()["Loss"]
        expect(page.get_by_text("could not be loaded")).to_have_count(0)

    def test_restored_database_replaces_log(self, visitor: Visitor, stage: Stage) -> None:
        """After a restore, a job's stream repeats its history from the beginning."""
        job = stage.lab.submit(LONG | {"priority": -100})
        stage.client.post(f"/v1/jobs/{job}/cancel")
        event = {"seq": 1, "at": "2026-01-01T00:00:00Z", "attempt": 0, "status": "queued", "reason": None}
        data = json.dumps(event | {"message": None, "rewind_to": None})
        page = visitor.page
        page.route(
            f"**/v1/jobs/{job}/events*",
            lambda route: route.fulfill(content_type="text/event-stream", body=f"event: status\ndata: {data}\n\n"),
            times=3,
        )
        with page.expect_response(
            lambda response: "/events" in response.url and response.headers.get("server") == "uvicorn"
        ):
            visitor.open(f"/jobs/{job}?tab=log")
        log = page.get_by_role("tabpanel").get_by_role("listitem")
        expect(log.filter(has_text="cancelled")).to_have_count(1)
        expect(log.filter(has_text="queued")).to_have_count(1)
