"""Rename, tag, annotate and archive a job and a comparison, and their lists; no worker is needed."""

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import text

from service.storage import database
from tests.acceptance.lab import JOB
from tests.browser.test_comparisons import comparison
from tests.browser.visitor import Stage, Visitor

CUT_OFF = """[...document.querySelectorAll(".scroll")].filter((part) => part.scrollWidth > part.clientWidth)
  .map((part) => part.innerText)"""


@pytest.fixture
def ended(stage: Stage) -> dict[str, str]:
    """The paths of a cancelled job and a cancelled comparison."""
    job = stage.lab.submit(JOB)
    stage.client.post(f"/v1/jobs/{job}/cancel")
    other = stage.client.post("/v1/comparisons", json=comparison("to be renamed")).json()["id"]
    stage.client.post(f"/v1/comparisons/{other}/cancel")
    return {"jobs": f"/jobs/{job}", "comparisons": f"/comparisons/{other}"}


def save(page: Page, **values: str) -> None:
    page.get_by_role("button", name="Edit", exact=True).click()
    form = page.get_by_role("form", name="Edit")
    for label, value in values.items():
        form.get_by_label(label.capitalize(), exact=True).fill(value)
    form.get_by_role("button", name="Save").click()


@pytest.mark.parametrize("kind", ["jobs", "comparisons"])
def test_edits_and_archives(visitor: Visitor, stage: Stage, ended: dict[str, str], kind: str) -> None:
    for path in (ended[kind], f"/{kind}/{ended[kind][-8:]}"):
        visitor.allow_status(422, f"/v1{path}")
    page = visitor.open(f"/{kind}/{ended[kind][-8:]}")  # as lists show ids
    if kind == "jobs":
        expect(page.get_by_text("The job ended (cancelled) before its first point: see the log.")).to_be_visible()
    save(page, name="A better name", tags="study", note="first line\nsecond line")
    expect(page.get_by_text("study needs a value, such as study:a")).to_be_visible()
    page.get_by_role("form", name="Edit").get_by_label("Tags", exact=True).fill("study:b")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_contain_text("A better name")
    expect(page.get_by_text("second line")).to_be_visible()
    expect(page.get_by_role("form", name="Edit")).to_be_hidden()
    assert stage.client.get(f"/v1{ended[kind]}").json()["tags"] == {"study": "b"}

    page.get_by_role("button", name="Archive").click()
    expect(page.locator(".head").get_by_text("archived", exact=True)).to_be_visible()
    page = visitor.open(f"/{kind}")
    row = page.locator(f"a[href='{ended[kind]}']")
    expect(page.get_by_role("button", name="Show archived")).to_be_visible()
    expect(row).to_have_count(0)
    page.get_by_role("button", name="Show archived").click()
    expect(row).to_be_visible()
    expect(page.get_by_role("button", name="Hide archived")).to_be_visible()
    assert page.url.endswith("?archived=true")

    page = visitor.open(ended[kind])
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("button", name="Archive")).to_be_visible()
    save(page, name="Again", tags="", note="")
    expect(page.locator("h1")).to_contain_text("Again")
    expect(page.get_by_text("second line")).to_have_count(0)


def test_tables_of_jobs_fit_into_1300_pixels(visitor: Visitor, stage: Stage) -> None:
    ko = {"name": "ko", "params": {"base": "nadamw", "collision": "hard"}}
    job = stage.lab.submit({**JOB, "optimizer": ko, "evaluate_test": False, "seed": 1_234_567})
    stage.client.post(f"/v1/jobs/{job}/cancel")
    rename = "UPDATE jobs SET spec = jsonb_set(spec, '{dataset,name}', '\"tables/penguins-of-the-palmer-archipelago\"')"
    with database.transaction() as session:
        session.execute(text(f"{rename} WHERE id = '{job}'"))
    for address in ("/", "/jobs"):
        page = visitor.open(address)
        page.set_viewport_size({"width": 1300, "height": 900})
        expect(page.get_by_role("table").first).to_contain_text("penguins")
        assert page.evaluate(CUT_OFF) == []
    expect(page.get_by_role("table")).to_contain_text("no test")
