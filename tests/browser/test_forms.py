"""The forms for jobs and comparisons, without a worker: each sends the request that it shows, and sends it once."""

import json
import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.acceptance.lab import JOB
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

JOB_PAGE = re.compile(r"/jobs/[0-9a-f-]{36}$")
COMPARISON_PAGE = re.compile(r"/comparisons/[0-9a-f-]{36}$")


def request(page: Page) -> dict[str, object]:
    """The request shown beside the form."""
    body: dict[str, object] = json.loads(page.locator(".beside details pre").text_content() or "")
    return body


def open_form(visitor: Visitor, form: str, **spec: object) -> Page:
    """Open the form, filled in from the query, and wait for its plan."""
    page = visitor.open(f"/{form}/new" + (f"?spec={quote(json.dumps(spec))}" if spec else ""))
    expect(page.locator(".beside pre").last).to_be_attached()
    return page


def drop_response(route: Route) -> None:
    """Deliver the request and drop the response."""
    route.fetch()
    route.abort()


@pytest.mark.parametrize("form", ["jobs", "comparisons"])
def test_retry_after_lost_response_creates_one(visitor: Visitor, stage: Stage, form: str) -> None:
    before = len(stage.client.get(f"/v1/{form}").json()["data"])
    page = open_form(visitor, form)
    page.route(re.compile(rf"/v1/{form}$"), drop_response, times=1)
    button = page.locator(".beside button.primary")
    with visitor.without_the_api():
        button.click()
        expect(page.get_by_text("kotrain is not responding", exact=True)).to_be_visible()
        button.click()
        expect(page).to_have_url({"jobs": JOB_PAGE, "comparisons": COMPARISON_PAGE}[form])
    assert len(stage.client.get(f"/v1/{form}").json()["data"]) == before + 1


def test_rejects_text_that_is_not_a_decimal_number(visitor: Visitor, subtests: pytest.Subtests) -> None:
    page = open_form(visitor, "jobs", **JOB)
    visitor.allow_status(422, "/v1/jobs")
    field = page.get_by_label("Learning rate", exact=True)
    error = re.compile("input should be a valid number")
    for typed in ["0x10", "Infinity", "1,5", "ten", "1e999"]:
        with subtests.test(typed):
            field.fill("0.1")
            expect(field).not_to_have_accessible_description(error)
            field.fill(typed)
            expect(field).to_have_accessible_description(error)


def test_variation_keeps_empty_lists_tags_and_limits(visitor: Visitor, stage: Stage) -> None:
    limits = {"priority": 3, "time_limit_seconds": 60.0, "memory_limit_bytes": 2**30, "max_failures": 2}
    linear = JOB | {"model": {"name": "mlp", "params": {"hidden": []}}} | limits
    job_id = stage.lab.submit(linear, tags={"a": "b:c"})
    page = visitor.open(f"/jobs/new?from={job_id}")
    expect(page.locator(".beside pre").first).to_be_visible()
    body = request(page)
    assert body["model"]["params"]["hidden"] == []
    assert body["tags"] == {"a": "b:c"}
    assert {name: body[name] for name in limits} == limits


class TestModelsOfLibraries:
    def test_job_form_shows_how_a_model_is_fitted(self, visitor: Visitor) -> None:
        page = open_form(visitor, "jobs", **JOB)
        model = page.get_by_label("Model", exact=True)
        model.select_option("timm/resnet18")
        expect(page.get_by_text("11,689,512 parameters for 1,000 classes; images from 1 pixel")).to_be_visible()
        expect(page.get_by_text("Stem fitted to the data: conv1: 1 channel instead of 3.")).to_be_visible()
        assert request(page)["model"] == "timm/resnet18"
        visitor.allow_status(422, "/v1/jobs")
        model.select_option("torchvision/alexnet")
        expect(model).to_have_accessible_description(re.compile("takes images of at least 63 x 63 pixels"))

    def test_comparison_form_offers_them_for_images(self, visitor: Visitor) -> None:
        page = open_form(visitor, "comparisons")
        model = page.get_by_label("Model", exact=True)
        model.select_option("torchvision/resnet18")
        until(lambda: "torchvision/resnet18" in json.dumps(request(page)))


class TestOptimizersOfLibraries:
    def test_offers_parameters_and_tunes_them(self, visitor: Visitor) -> None:
        visitor.allow_status(422, "/v1/comparisons")  # incomplete input is invalid
        page = open_form(visitor, "comparisons")
        card = page.locator(".card").filter(has_text="Optimizer 1")
        card.get_by_label("Optimizer", exact=True).select_option("pytorch_optimizer/soap")
        card.get_by_label("Weight decay", exact=True).fill("0.02")
        expect(page.locator(".beside details pre")).to_contain_text('"name": "pytorch_optimizer/soap"')
        expect(page.locator(".beside details pre")).to_contain_text('"weight_decay": 0.02')
        options = card.get_by_label("Tuned hyperparameter", exact=True).first.locator("option").all_inner_texts()
        assert {"lr", "shampoo_beta", "precondition_frequency"} <= set(options)

    def test_variation_keeps_parameters(self, visitor: Visitor, stage: Stage) -> None:
        for optimizer in (
            {"name": "pytorch_optimizer/soap", "params": {"lr": 0.01, "betas": [0.8, 0.9]}},
            {"name": "ko", "params": {"base": "torch/asgd", "gamma": 0.2, "lambd": 0.001}},
        ):
            job_id = stage.lab.submit(JOB | {"optimizer": optimizer})
            page = visitor.open(f"/jobs/new?from={job_id}")
            spec = page.locator(".beside pre").first
            expect(spec).to_contain_text(f'"name": "{optimizer["name"]}"')
            last = list(optimizer["params"].items())[-1]
            expect(spec).to_contain_text(f'"{last[0]}": ' + ("[" if isinstance(last[1], list) else str(last[1])))
            kept = request(page)["optimizer"]["params"]
            assert kept.items() >= optimizer["params"].items()


def test_keeps_deleted_data_set_and_marks_it_invalid(visitor: Visitor) -> None:
    visitor.allow_status(422, "/v1/jobs")
    page = visitor.open("/jobs/new?spec=" + quote(json.dumps(JOB | {"dataset": "images/gone"})))
    field = page.get_by_label("Data set", exact=True)
    expect(field).to_have_value("images/gone")
    expect(field).to_have_attribute("aria-invalid", "true")


def test_explains_invalid_tags(visitor: Visitor) -> None:
    visitor.allow_status(422, "/v1/jobs")
    page = open_form(visitor, "jobs", **JOB)
    field = page.get_by_label("Tags", exact=True)
    field.fill("first")
    expect(field).to_have_accessible_description(re.compile("first needs a value, such as first:a"))
    field.fill("a:1, a:2")
    expect(field).to_have_accessible_description(re.compile("a is given twice"))
    field.fill("study:a<b")
    expect(field).to_have_accessible_description(re.compile("must be 1 to 64 letters, digits"))


class TestTunedParameters:
    @pytest.fixture
    def page(self, visitor: Visitor) -> Page:
        visitor.allow_status(422, "/v1/comparisons")  # incomplete input is invalid
        return open_form(visitor, "comparisons")

    @pytest.fixture
    def card(self, page: Page) -> Locator:
        return page.locator(".card").filter(has_text="Optimizer 2")  # KO

    @staticmethod
    def tuned(card: Locator) -> list[str]:
        return [choice.input_value() for choice in card.get_by_label("Tuned hyperparameter", exact=True).all()]

    def test_disables_fixed_value_of_tuned_parameter(self, page: Page, card: Locator) -> None:
        rate = card.get_by_label("Learning rate", exact=True)
        expect(rate).to_be_disabled()
        card.get_by_role("group", name="A tuned hyperparameter").get_by_role("button", name="Remove").click()
        rate.fill("0.5")
        expect(page.locator(".beside details pre")).to_contain_text('"lr": 0.5')

    def test_offers_each_parameter_once(self, card: Locator) -> None:
        add_parameter = card.get_by_role("button", name="Tune a hyperparameter")
        while add_parameter.is_visible():
            add_parameter.click()
        names = self.tuned(card)
        assert len(names) > 3
        assert len(set(names)) == len(names)
        expect(card.get_by_label("Gamma", exact=True)).to_be_disabled()

    def test_offers_parameters_of_selected_base(self, card: Locator) -> None:
        card.get_by_role("button", name="Tune a hyperparameter").click()
        assert self.tuned(card) == ["lr", "eps"]
        card.get_by_label("Base", exact=True).select_option("sgd")
        assert self.tuned(card) == ["lr"]
        options = card.get_by_label("Tuned hyperparameter", exact=True).locator("option").all_inner_texts()
        assert "momentum" in options
        assert "eps" not in options

    def test_fills_in_values_of_categorical_parameter(self, page: Page, card: Locator) -> None:
        add_parameter = card.get_by_role("button", name="Tune a hyperparameter")
        while "collision" not in self.tuned(card):
            add_parameter.click()
        values = card.get_by_label("Values", exact=True).nth(self.tuned(card).index("collision"))
        assert values.input_value() == "soft, hard, none"
        expect(card.get_by_label("Collision", exact=True)).to_be_disabled()

    def test_keeps_unknown_parameter_in_query(self, visitor: Visitor) -> None:
        visitor.allow_status(422, "/v1/comparisons")
        adam = {"name": "adam", "space": {"speed": {"choice": [1, 2]}}}
        page = visitor.open(
            f"/comparisons/new?spec={quote(json.dumps({'optimizers': [adam, 'ko'], 'tuning': {'trials': 2}}))}"
        )
        expect(page.get_by_label("Values", exact=True).first).to_have_attribute("aria-invalid", "true")
        assert self.tuned(page.locator(".card").filter(has_text="Optimizer 1")) == ["speed"]

    def test_shows_error_at_row_of_invalid_values(self, card: Locator) -> None:
        values = card.get_by_label("Values", exact=True)
        values.fill("0.1, 0.01")
        expect(values).to_have_accessible_description(re.compile("the first value must be less than the second"))
        values.fill("0.1")
        expect(values).to_have_accessible_description(re.compile("value 2 is missing"))


def test_opens_form_with_invalid_spec_in_query(visitor: Visitor, subtests: pytest.Subtests) -> None:
    visitor.allow_status(422, "/v1/comparisons")
    for spec in [
        "null",
        "[]",
        "{",
        '{"tasks":5,"vary":5}',
        '{"optimizers":["adam",{"name":"ko","params":null,"space":{"lr":{}}}]}',
    ]:
        with subtests.test(spec):
            page = visitor.open(f"/comparisons/new?spec={quote(spec)}")
            expect(page.get_by_label("Optimizer", exact=True)).to_have_count(2)
            expect(page.locator(".beside h2")).to_be_visible()


def test_unreadable_spec_offers_page_without_query(visitor: Visitor) -> None:
    visitor.allow_message("TypeError")
    page = visitor.open('/comparisons/new?spec={"tasks":[null]}')
    page.get_by_role("link", name="Open the page without its query").click()
    expect(page.locator(".beside").get_by_role("heading", name="Plan", exact=True)).to_be_visible()


def test_unknown_address_links_to_overview(visitor: Visitor) -> None:
    visitor.allow_status(404, "/nonsense")
    page = visitor.open("/nonsense")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    page.get_by_role("link", name="Go to the overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_unknown_job_links_to_overview(visitor: Visitor) -> None:
    visitor.allow_status(404, "/v1/jobs/")
    page = visitor.open("/jobs/00000000-0000-7000-8000-000000000000")
    expect(page.get_by_role("alert")).to_contain_text("not found")
    page.get_by_role("link", name="Go to the overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_announces_slow_response(visitor: Visitor) -> None:
    page = visitor.page
    page.clock.install()
    held: list[Route] = []
    page.route("**/v1/leaderboard*", lambda route: held.append(route))
    visitor.open("/leaderboard")
    until(lambda: page.evaluate("1") and held)
    page.clock.fast_forward(9000)
    expect(page.get_by_text("kotrain is responding slowly.")).to_be_visible()
    for route in held:
        route.continue_()
    expect(page.get_by_text("kotrain is responding slowly.")).to_be_hidden()


def test_skip_link_keeps_form_content(visitor: Visitor) -> None:
    page = visitor.open("/keys")
    field = page.get_by_label("User", exact=True)
    field.fill("grace")
    page.get_by_role("link", name="Skip to content").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(field).to_have_value("grace")
