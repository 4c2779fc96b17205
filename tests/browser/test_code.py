"""Uploaded code: upload, read, train with it, compare versions and delete, with a real worker."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser.visitor import Stage, Visitor

pytestmark = pytest.mark.usefixtures("worker")
OWN = Path(__file__).parents[1] / "acceptance/code/own.py"


def test_uploads_reads_trains_compares_and_deletes(visitor: Visitor, stage: Stage, tmp_path: Path) -> None:
    stage.client.post("/v1/code?kind=optimizer&name=own", content=OWN.read_bytes())
    newer = tmp_path / "Own 2.py"
    newer.write_text(OWN.read_text().replace("beta: float = 0.9", "beta: float = 0.95"))
    page = visitor.open("/code")
    page.get_by_label("Python file").set_input_files(newer)
    expect(page.get_by_label("Name", exact=True)).to_have_value("own_2")
    page.get_by_label("Name", exact=True).fill("own")
    page.get_by_role("button", name="Upload").click()
    details = page.get_by_role("region", name="ada/own@").first
    expect(details.get_by_role("region", name="Conformance test")).to_contain_text("bitwise identical")
    expect(details.get_by_role("region", name="Parameters")).to_contain_text("log-uniform: 0.0001 to 0.01")
    details.get_by_role("button", name="Show changes").click()
    expect(details.locator("pre").last).to_contain_text(
        "+    def __init__(self, params, lr: float = 1e-3, beta: float = 0.95)"
    )
    details.get_by_text("Source", exact=True).click()
    expect(details.locator(".py-keyword").first).to_have_text("import")

    details.get_by_role("link", name="Train with it").click()
    expect(page.get_by_label("Optimizer", exact=True)).to_have_value(re.compile("ada/own@"))
    expect(page.get_by_label("Beta", exact=True)).to_have_attribute("placeholder", "0.95")
    expect(page.locator(".beside pre").first).to_contain_text('"beta": 0.95')

    visitor.open("/jobs/new")
    page.get_by_label("Optimizer", exact=True).select_option("ada/own")
    page.get_by_label("Beta", exact=True).fill("0.8")
    expect(page.locator(".beside pre").first).to_contain_text('"beta": 0.8')

    visitor.open("/code")
    links = page.get_by_role("link", name="ada/own@")
    expect(links).to_have_count(2)
    links.first.click()
    delete = page.get_by_role("button", name="Delete")
    delete.click()
    page.get_by_role("button", name="Click again to delete").press("Enter")
    expect(links).to_have_count(1)


def test_source_stays_open_while_the_conformance_test_runs(visitor: Visitor, stage: Stage) -> None:
    name = stage.client.post("/v1/code?kind=optimizer&name=own", content=OWN.read_bytes()).json()["name"]
    checks: list[dict[str, str]] = []
    answers: list[str] = []

    def answer(route: Route) -> None:
        response = route.fetch()
        answers.append(route.request.url)
        route.fulfill(response=response, json=response.json() | {"checks": checks or None})

    page = visitor.page
    page.clock.install()
    page.route(f"**/v1/code/{name.replace('@', '%40')}", answer)
    visitor.open("/code?show=" + name)
    details = page.get_by_role("region", name=name).first
    expect(details).to_contain_text("A worker runs it after the upload")
    details.get_by_text("Source", exact=True).click()
    keyword = details.locator(".py-keyword").first
    for _ in range(2):
        with page.expect_response("**/v1/code/ada/own%40*"):
            page.clock.fast_forward(3000)
        expect(keyword).to_be_visible()
    checks.append({"name": "cost", "outcome": "pass", "text": "as fast as AdamW"})
    page.clock.fast_forward(3000)
    expect(details.get_by_role("region", name="Conformance test")).to_contain_text("as fast as AdamW")
    expect(keyword).to_be_visible()
    page.clock.fast_forward(9000)
    visitor.wait_for_messages()
    assert len(answers) == 4, "it is not asked for results any more"


def test_invalid_file_is_refused_with_its_line(visitor: Visitor, tmp_path: Path) -> None:
    visitor.allow_status(422, "/v1/code")
    page = visitor.open("/code")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("Select a file first.")).to_be_visible()
    invalid = tmp_path / "mine.py"
    invalid.write_text("import torch\nimport requests\n")
    page.get_by_label("Python file").set_input_files(invalid)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("mine.py, line 2: imports requests, which is not available")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("random")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_label("Name", exact=True)).to_have_accessible_description(re.compile("name of a module"))
