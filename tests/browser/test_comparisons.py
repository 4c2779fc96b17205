"""A comparison from the form to the verdict, with a real worker, and the leaderboard of its runs."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("worker")


def comparison(name: str, **changes: object) -> dict[str, object]:
    """Two optimizers, three seeds, two epochs of digits: six runs of about a second."""
    task = {"dataset": "digits", "model": {"name": "mlp", "params": {"hidden": [32]}}, "budget": {"epochs": 2}}
    optimizers = [{"name": "adam", "params": {"lr": 0.01}}, {"name": "sgd", "params": {"lr": 0.0001}}]
    return {"name": name, "tasks": [task], "optimizers": optimizers, "seeds": {"max": 3}, **changes}


@pytest.fixture(scope="module")
def ended(stage: Stage, worker: object) -> str:
    """A finished comparison."""
    comparison_id = str(stage.client.post("/v1/comparisons", json=comparison("ended")).json()["id"])
    until(lambda: stage.client.get(f"/v1/comparisons/{comparison_id}").json()["status"] == "succeeded")
    return comparison_id


@pytest.fixture
def running(stage: Stage) -> Iterator[str]:
    """A comparison that runs until the test ends."""
    long = comparison("too long", seeds={"max": 20})
    long["tasks"][0]["budget"] = {"steps": 1_000_000}  # type: ignore[index]
    comparison_id = str(stage.client.post("/v1/comparisons", json=long).json()["id"])
    until(lambda: stage.client.get(f"/v1/comparisons/{comparison_id}").json()["progress"]["running"] == 2)
    yield comparison_id
    stage.client.post(f"/v1/comparisons/{comparison_id}/cancel")
    until(lambda: stage.client.get(f"/v1/comparisons/{comparison_id}").json()["status"] != "running")


def fill_in(page: Page) -> None:
    """Reduce the initial content of the form to six short runs."""
    page.get_by_label("Name", exact=True).fill("Adam against KO, briefly")
    page.get_by_label("Budget", exact=True).fill("2")
    page.get_by_label("Seeds", exact=True).fill("3")
    page.get_by_label("Looks", exact=True).fill("")
    for number in range(2):
        card = page.locator(".card").filter(has_text=f"Optimizer {number + 1}")
        card.get_by_role("button", name="Remove").last.click()  # its tuned learning rate
        card.get_by_label("Learning rate", exact=True).fill(["0.01", "0.0001"][number])


def test_comparison_from_form_to_verdict(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open("/comparisons/new")
    plan = page.locator(".beside")
    expect(plan.get_by_role("heading", name="Plan", exact=True)).to_be_visible()
    fill_in(page)
    expect(plan.locator(".numbers dd").first).to_have_text("6")
    page.get_by_role("button", name="Start comparison").click()
    expect(page).to_have_url(re.compile(r"/comparisons/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="Adam against KO, briefly")).to_be_visible()
    expect(page.get_by_role("progressbar", name="progress of the comparison")).to_be_visible()

    scores = page.get_by_role("table").filter(has_text="one run per seed")
    expect(scores.locator("tbody tr")).to_have_count(2)
    expect(scores.get_by_role("cell", name="3", exact=True)).to_have_count(2, timeout=60_000)  # seed after seed
    expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)
    verdict = page.get_by_role("region", name="Verdict", exact=True)
    answer = stage.client.get(f"/v1/comparisons/{page.url.rpartition('/')[2]}").json()
    assert answer["verdict"]
    for sentence in answer["verdict"]:
        expect(verdict).to_contain_text(sentence.removeprefix(f"{answer['tasks'][0]['label']}: "))
    expect(page.locator("figure.chart").filter(has_text="Scores of runs").locator(".plot svg").first).to_be_visible()

    page.get_by_label("Metric of the curves").select_option("val_loss")
    expect(page).to_have_url(re.compile("metric=val_loss"))
    for button, ending in (("Report", "html"), ("CSV", "csv"), ("LaTeX", "tex"), ("JSON", "json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        assert download.value.suggested_filename == f"adam-against-ko-briefly.{ending}"


def test_finished_runs_appear_on_leaderboard(visitor: Visitor, stage: Stage) -> None:
    answer = stage.client.post("/v1/comparisons", json=comparison("for the board")).json()
    page = visitor.open(f"/comparisons/{answer['id']}")
    expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)
    page.get_by_role("link", name="Leaderboard").click()
    board = page.get_by_role("table").filter(has_text="sgd")
    expect(board.locator("tbody tr").first).to_contain_text("1")
    expect(board.locator("tbody tr")).to_contain_text(["adam", "sgd"])
    page.get_by_label("Model").select_option("cnn")
    expect(page.get_by_text("No finished runs")).to_be_visible()
    page.get_by_role("link", name="Comparisons").click()
    expect(page.get_by_role("link", name="for the board")).to_be_visible()


def test_escapes_optimizer_label_in_figures(visitor: Visitor, stage: Stage) -> None:
    label = "<b>a</b> <a href='https://elsewhere.invalid/'>b</a> & c"
    optimizers = [{"name": "adam", "params": {"lr": 0.01}, "label": label}, {"name": "sgd", "params": {"lr": 0.0001}}]
    answer = stage.client.post("/v1/comparisons", json=comparison("escaped", optimizers=optimizers)).json()
    page = visitor.open(f"/comparisons/{answer['id']}")
    expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)
    figure = page.locator("figure.chart").filter(has=page.get_by_role("heading", name="Curves", exact=True))
    expect(figure.locator(".legendtext").filter(has_text=label)).to_be_visible()
    assert page.locator("figure.chart a").count() == 0


def test_cancels_running_comparison(visitor: Visitor, running: str) -> None:
    page = visitor.open(f"/comparisons/{running}")
    button = page.get_by_role("button", name="Cancel")
    button.evaluate("button => { button.same = true; }")
    expect(page.get_by_text("2 running")).to_be_visible()
    assert button.evaluate("button => button.same")
    button.click()
    page.get_by_role("button", name="Click again to cancel").click()
    expect(page.locator(".head .chip")).to_contain_text("cancelled")
    expect(page.get_by_role("region", name="Verdict", exact=True)).not_to_be_empty()


def test_marks_and_focuses_invalid_field(visitor: Visitor) -> None:
    visitor.allow_status(422, "/v1/comparisons")
    page = visitor.open("/comparisons/new")
    field = page.get_by_label("Seeds", exact=True)
    field.fill("0")
    expect(field).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Start comparison").click()
    expect(field).to_be_focused()


def test_keeps_selected_tab_while_runs_finish(visitor: Visitor, running: str, stage: Stage) -> None:
    page = visitor.open(f"/comparisons/{running}?tab=plan")
    expect(page.locator(".head .live")).to_have_text("live")
    plan, panel = page.get_by_role("tab", name="Plan"), page.get_by_role("tabpanel")
    verdict = page.get_by_role("region", name="Verdict", exact=True)
    for part in (panel.locator("pre"), verdict):
        part.evaluate("part => { part.same = true; }")
    job = stage.client.get("/v1/jobs", params={"comparison": running, "status": "running"}).json()["data"][0]["id"]
    stage.client.post(f"/v1/jobs/{job}/cancel")
    expect(page.get_by_text("1 cancelled", exact=True)).to_be_visible()  # the page has been refreshed
    expect(plan).to_have_attribute("aria-selected", "true")
    assert panel.locator("pre").evaluate("part => part.same")
    assert verdict.evaluate("part => part.same")  # screen readers do not announce a replaced live region
    page.get_by_role("tab", name="Missing runs").click()
    expect(page).to_have_url(re.compile("tab=missing"))
    page.get_by_role("tab", name="Methods").click()
    expect(page).not_to_have_url(re.compile("tab="))


def test_ignores_invalid_task_in_query(visitor: Visitor, ended: str, subtests: pytest.Subtests) -> None:
    for task in ["abc", "1.5", "-3", "99"]:
        with subtests.test(task):
            page = visitor.open(f"/comparisons/{ended}?task={task}")
            expect(page.get_by_role("table").filter(has_text="one run per seed")).to_be_visible()
