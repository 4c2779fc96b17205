"""Sign-in and API keys."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.visitor import Stage, Visitor


def sign_in(visitor: Visitor, key: str) -> None:
    visitor.page.get_by_label("API key").fill(key)
    visitor.page.get_by_role("button", name="Sign in").click()


class TestSignIn:
    def test_asks_for_key_once_and_never_shows_it(self, visit: Visit, stage: Stage) -> None:
        visitor = visit(key=None)
        page = visitor.open()
        expect(page.get_by_role("heading", name="Sign in to kotrain")).to_be_visible()
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_count(0)

        visitor.allow_status(401, "/v1/me")
        sign_in(visitor, "kt_of-another-kotrain")
        expect(page.get_by_role("alert")).to_contain_text("Unknown key")
        expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
        sign_in(visitor, "not a key")
        expect(page.get_by_role("alert")).to_contain_text("without spaces")

        visitor.key = stage.key  # must not appear from here on
        sign_in(visitor, f"  {stage.key}\n")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert page.url == f"{stage.url}/"

    def test_opens_requested_page_after_sign_in(self, visit: Visit, stage: Stage) -> None:
        visitor = visit(key=None)
        visitor.open("/leaderboard?metric=test_loss")
        sign_in(visitor, stage.key)
        expect(visitor.page.get_by_role("heading", name="Leaderboard")).to_be_visible()
        assert visitor.page.url.endswith("/leaderboard?metric=test_loss")

    def test_sign_out_removes_stored_key(self, visitor: Visitor) -> None:
        page = visitor.open("/jobs")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("alert")).to_have_text("Signed out.")
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        expect(page.get_by_role("heading", name="Sign in to kotrain")).to_be_visible()

    def test_sign_out_reaches_other_tabs(self, visitor: Visitor, stage: Stage) -> None:
        visitor.open("/jobs/new")
        other = visitor.context.new_page()
        other.goto(f"{stage.url}/jobs")
        other.get_by_role("button", name="Sign out").click()
        expect(visitor.page.get_by_role("heading", name="Sign in to kotrain")).to_be_visible()


def test_double_click_creates_one_key(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open("/keys")
    page.get_by_label("User", exact=True).fill("hopper")
    page.get_by_role("button", name="Create key").dblclick()
    expect(page.get_by_role("status").filter(has_text="Key of hopper")).to_be_visible()
    users = [key["user"] for key in stage.client.get("/v1/keys").json()["keys"]]
    assert users.count("hopper") == 1


def test_creates_uses_and_revokes_key(visit: Visit) -> None:
    admin = visit()
    page = admin.open("/keys")
    page.get_by_label("User", exact=True).fill("grace")
    page.get_by_role("button", name="Create key").click()
    notice = page.get_by_role("status").filter(has_text="Key of grace")
    expect(notice).to_contain_text("cannot be shown again")
    key = notice.locator("code").inner_text()
    assert re.fullmatch(r"kt_\S{43}", key)
    page.reload()
    expect(page.get_by_role("rowheader", name="grace")).to_be_visible()
    assert key not in page.content()

    user = visit(key=None)
    user_page = user.open("/keys")
    sign_in(user, key)
    user.key = key
    expect(user_page.get_by_role("heading", name="Keys")).to_be_visible()
    expect(user_page.get_by_text("An administrator creates new ones")).to_be_visible()
    expect(user_page.get_by_role("row")).to_have_count(2)  # the head and one key
    expect(user_page.get_by_role("button", name="Create key")).to_have_count(0)

    revoke = page.get_by_role("row", name=re.compile("grace")).get_by_role("button")
    revoke.click()
    expect(revoke).to_have_text("Click again to revoke")
    revoke.click()
    expect(page.get_by_text("revoked")).to_be_visible()
    user.allow_status(401, "/v1/")
    user_page.get_by_role("link", name="Jobs").click()
    expect(user_page.get_by_role("heading", name="Sign in to kotrain")).to_be_visible()
    expect(user_page.get_by_role("alert")).not_to_be_empty()


def test_shows_error_for_invalid_user_name(visitor: Visitor) -> None:
    page = visitor.open("/keys")
    visitor.allow_status(422, "/v1/keys")
    page.get_by_label("User", exact=True).fill("a,b")
    page.get_by_role("button", name="Create key").click()
    field = page.get_by_label("User", exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("must be 1 to 64 letters"))
    expect(field).to_be_focused()
