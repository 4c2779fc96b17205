"""/docs in a browser. As on every page, a request to another host or an error in the console fails the test."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.visitor import Stage


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_docs_show_every_operation(visit: Visit, stage: Stage, scheme: str) -> None:
    paths = stage.client.get("/openapi.json").json()["paths"]
    operations = sum(len(operation["tags"]) for path in paths.values() for operation in path.values())
    page = visit(scheme=scheme).open("/docs")
    expect(page.locator(".opblock")).to_have_count(operations)


def test_requests_are_sent_with_the_key(visit: Visit, stage: Stage) -> None:
    page = visit(key=None).open("/docs")
    page.locator(".opblock", has_text="/v1/me").locator(".opblock-summary-control").click()
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_role("textbox", name="auth-bearer-value").fill(stage.key)
    page.get_by_role("button", name="Apply credentials").click()
    page.locator(".btn-done").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/v1/me") as response:
        page.get_by_role("button", name="Execute").click()
    assert response.value.json() == {"user": "ada", "is_admin": True}
