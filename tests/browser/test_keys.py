"""Who comes, and with which key."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.visitor import Stage, Visitor


def sign_in(visitor: Visitor, key: str) -> None:
    visitor.page.get_by_label("Your API key").fill(key)
    visitor.page.get_by_role("button", name="Open the dashboard").click()


class TestFirstVisit:
    def test_the_key_is_asked_for_once_and_kept_out_of_sight(self, visit: Visit, stage: Stage) -> None:
        visitor = visit(key=None)
        page = visitor.open()
        expect(page.get_by_role("heading", name="Welcome to kotrain")).to_be_visible()
        expect(page.get_by_label("Your API key")).to_be_focused()
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_count(0)

        visitor.expects(401, "/v1/me")
        sign_in(visitor, "kt_of-another-kotrain")
        expect(page.get_by_role("alert")).to_contain_text("This key is not known here")
        expect(page.get_by_label("Your API key")).to_have_attribute("aria-invalid", "true")
        sign_in(visitor, "not a key")
        expect(page.get_by_role("alert")).to_contain_text("no spaces")

        visitor.key = stage.key  # from here on it must not show
        sign_in(visitor, f"  {stage.key}\n")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert page.url == f"{stage.url}/"

    def test_an_address_waits_for_the_key(self, visit: Visit, stage: Stage) -> None:
        visitor = visit(key=None)
        visitor.open("/leaderboard?metric=test_loss")
        sign_in(visitor, stage.key)
        expect(visitor.page.get_by_role("heading", name="Leaderboard")).to_be_visible()
        assert visitor.page.url.endswith("/leaderboard?metric=test_loss")

    def test_signing_out_forgets_it(self, visitor: Visitor) -> None:
        page = visitor.open("/jobs")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("alert")).to_have_text("Signed out.")
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        expect(page.get_by_role("heading", name="Welcome to kotrain")).to_be_visible()

    def test_other_tabs_learn_of_it(self, visitor: Visitor, stage: Stage) -> None:
        visitor.open("/jobs/new")
        other = visitor.context.new_page()
        other.goto(f"{stage.url}/jobs")
        other.get_by_role("button", name="Sign out").click()
        expect(visitor.page.get_by_role("heading", name="Welcome to kotrain")).to_be_visible()


def test_one_click_too_many_makes_no_second_key(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open("/keys")
    page.get_by_label("User", exact=True).fill("hopper")
    page.get_by_role("button", name="Make a key").dblclick()
    expect(page.get_by_role("status").filter(has_text="The key of hopper")).to_be_visible()
    users = [key["user"] for key in stage.client.get("/v1/keys").json()["keys"]]
    assert users.count("hopper") == 1


def test_a_key_from_its_making_to_its_end(visit: Visit) -> None:
    admin = visit()
    page = admin.open("/keys")
    page.get_by_label("User", exact=True).fill("grace")
    page.get_by_role("button", name="Make a key").click()
    made = page.get_by_role("status").filter(has_text="The key of grace")
    expect(made).to_contain_text("shown this once")
    key = made.locator("code").inner_text()
    assert re.fullmatch(r"kt_\S{43}", key)
    page.reload()
    expect(page.get_by_role("rowheader", name="grace")).to_be_visible()
    assert key not in page.content()

    user = visit(key=None)
    theirs = user.open("/keys")
    sign_in(user, key)
    user.key = key
    expect(theirs.get_by_role("heading", name="Keys")).to_be_visible()
    expect(theirs.get_by_text("An administrator makes new ones")).to_be_visible()
    expect(theirs.get_by_role("row")).to_have_count(2)  # the head, and the one key of theirs
    expect(theirs.get_by_role("button", name="Make a key")).to_have_count(0)

    take = page.get_by_role("row", name=re.compile("grace")).get_by_role("button")
    take.click()
    expect(take).to_have_text("Really?")
    take.click()
    expect(page.get_by_text("works no longer")).to_be_visible()
    user.expects(401, "/v1/")
    theirs.get_by_role("link", name="Jobs").click()
    expect(theirs.get_by_role("heading", name="Welcome to kotrain")).to_be_visible()
    expect(theirs.get_by_role("alert")).not_to_be_empty()


def test_a_name_that_no_user_can_have(visitor: Visitor) -> None:
    page = visitor.open("/keys")
    visitor.expects(422, "/v1/keys")
    page.get_by_label("User", exact=True).fill("a,b")
    page.get_by_role("button", name="Make a key").click()
    field = page.get_by_label("User", exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("must be 1 to 64 letters"))
    expect(field).to_be_focused()
