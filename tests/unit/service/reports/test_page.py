"""The HTML report, parsed as by a browser: its contents, and that it requests nothing."""

import html
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from service.comparisons.answers import ComparisonAnswer, LeftOut
from service.reports.rendering import curve_names, file_name, job_ids, render
from service.specs.states import ComparisonStatus
from tests.unit.service.reports.studies import TASKS, StudyData, missing_run, study
from tests.unit.service.reports.unfinished import unfinished_answer

VOID = {"meta", "link", "br"}
LONG = "an optimizer whose label is as long as labels are allowed to be.."
TWELVE = [
    {"name": "adam", "params": {"lr": 0.0001 * (number + 1)}, "label": label}
    for number, label in enumerate(
        [
            LONG[:63] + "1",
            LONG[:63] + "2",
            "优化器 一号",
            "a@b/c+d=e:f",
            "-1+2",
            "ÄÖÜß",
            "a",
            "b",
            "c",
            "d",
            "x_" * 32,
            "e",
        ]
    )
]


class Page(HTMLParser):
    """The elements and texts of a page; fail if tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(data: StudyData) -> Page:
    return Page(render("html", data.answer, data.curves).body)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Omit the figures, for tests of other parts of the page: they take most of the time."""
    monkeypatch.setattr("service.reports.page.MAX_DRAWN", 0)


def changed(answer: ComparisonAnswer, **changes: Any) -> StudyData:
    return StudyData(answer.model_copy(update=changes))


CASES = {
    "usual": lambda: study(),
    "diverged": lambda: study(diverged={(1, 3): 1, (0, 0): 5}),
    "twelve": lambda: study(optimizers=TWELVE, tasks=TASKS[:1], diverged={(0, 4): 2}),
    "one seed": lambda: study(seeds=1),
    "two seeds": lambda: study(tasks=TASKS[:1], seeds=2),
    "loss": lambda: study(tasks=TASKS[:1], metric="test_loss", seeds=6, diverged={(0, 1): 2}),
    "speed": lambda: study(metric="samples_per_second", tasks=TASKS[:1]),
    "without curves": lambda: study(tasks=TASKS[:1], with_curves=False),
    "eight tasks": lambda: study(
        tasks=[{**TASKS[0], "batch_size": 16 + number} for number in range(8)],
        optimizers=TWELVE[2:5],
        critical_difference=1.5,
        seeds=3,
    ),
    "waiting": lambda: StudyData(unfinished_answer()),
    "no task": lambda: changed(study().answer, tasks=[], across=None, verdict=[], assumptions=[]),
}


@cache
def rendered(case: str) -> tuple[str, Page]:
    """The body and its elements; each case is rendered once."""
    data = CASES[case]()
    body = render("html", data.answer, data.curves).body
    return body, Page(body)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Page]:
    return rendered(request.param)


class TestAnyAnswer:
    def test_is_self_contained_page(self, case: tuple[str, Page]) -> None:
        body, page = case
        assert body.startswith("<!DOCTYPE html>")
        assert not page.of("script")
        assert "://" not in body
        assert not re.findall(r"@import|url\((?!#)", body)
        for tag in ("a", "use"):
            assert all((element.get("href") or "").startswith("#") for element in page.of(tag))
        assert [element["href"] for element in page.of("link")] == ["data:,"]

    def test_ids_are_unique_and_links_resolve(self, case: tuple[str, Page]) -> None:
        _, page = case
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        targets = {(element["href"] or "")[1:] for element in [*page.of("a"), *page.of("use")]}
        assert targets <= set(ids)

    def test_has_no_none_nan_or_infinity(self, case: tuple[str, Page]) -> None:
        _, page = case
        assert not re.findall(r"\b(None|nan|NaN|inf|Infinity)\b", page.text)
        values = [
            value or "" for _, attributes in page.elements for name, value in attributes.items() if name != "class"
        ]
        assert not [value for value in values if re.search(r"\bnan\b|\binf\b", value)]

    def test_figures_are_described(self, case: tuple[str, Page]) -> None:
        _, page = case
        plots = [element for element in page.of("svg") if element.get("class") == "plot"]
        assert len(plots) == len(page.of("figure")) == len(page.of("figcaption"))
        for plot in plots:
            assert plot["role"] == "img"
            assert plot["aria-labelledby"]


class TestUsual:
    def test_is_smaller_than_600_kB(self) -> None:
        assert len(rendered("usual")[0].encode()) < 600_000

    def test_verdict_comes_first(self) -> None:
        data, (_, page) = study(), rendered("usual")
        text = page.text
        sentence = data.answer.tasks[0].verdict.text
        assert text.index(sentence) < text.index("Scores")
        assert "88 of 88 runs ended" in text

    def test_has_every_figure(self) -> None:
        text = rendered("usual")[1].text
        for title in (
            "Validation accuracy by step",
            "Validation accuracy over time",
            "Test accuracy of every run",
            "Paired differences",
            "Training loss by step",
            "Weight correlation by step",
            "Sensitivity to the learning rate",
            "Expected best score by number of trials",
            "Trials of ko soft (adam)",
            "Time per step and peak memory",
            "Time to target",
            "Mean ranks",
            "Interquartile mean of the test accuracy",
            "Probability of improvement",
            "Performance profile of the time to target",
        ):
            assert title in text
        assert "No figure of" not in text

    def test_has_numbers_of_groups(self) -> None:
        text = rendered("usual")[1].text
        assert "ko soft (adam) 5 96.67 ± 0.17 96.46 to 96.87 96.87" in text
        assert "Other jobs may have run on the same devices" in text

    def test_states_assumptions_methods_and_reused_runs(self) -> None:
        data, text = study(), rendered("usual")[1].text
        assert "✓ holds Pairing." in text
        assert "! warning Undisturbed timing." in text
        assert "? unknown Symmetry of differences." in text
        assert data.answer.methods in text
        assert "3 existing runs were reused, submitted by ada (2) and grace (1)." in text
        assert f"/v1/comparisons/{data.answer.id}/report?format=csv" in text
        assert "2026-11-24 12:00 UTC" in text

    def test_is_reproducible(self) -> None:
        data = CASES["two seeds"]()
        assert render("html", data.answer, data.curves).body == rendered("two seeds")[0]


class TestAwkward:
    @pytest.mark.usefixtures("without_figures")
    def test_escapes_texts_of_users(self) -> None:
        name = '<b>ours</b> & "theirs" \' {{ 7 * 7 }} </style></title><script>alert(1)</script>'
        data = study(name=name, tasks=TASKS[:1])
        data.answer.tags["<i>"] = "<img src=x onerror=alert(1)>"
        body = render("html", data.answer, data.curves).body
        page = Page(body)
        assert page.of("script") == page.of("img") == page.of("i") == []
        assert name in page.text
        assert html.escape(name, quote=False) in body.replace("&#34;", '"').replace("&#39;", "'")

    def test_states_why_figure_is_missing(self) -> None:
        text = rendered("waiting")[1].text
        assert "No final run has a result yet." in text
        assert "no trial has ended yet" in text
        assert "tuning: 6 of at most 88 runs ended" in text

    def test_draws_many_pairs_against_best_only(self) -> None:
        text = rendered("twelve")[1].text
        assert "the other 55 are in the table" in text
        assert all(optimizer["label"] in text for optimizer in TWELVE)

    def test_states_why_ranks_are_not_tested(self) -> None:
        text = rendered("usual")[1].text
        assert "Descriptive only, without a significance test. Friedman's test: it needs 8 tasks or more." in text

    @pytest.mark.usefixtures("without_figures")
    def test_states_why_means_have_no_intervals(self) -> None:
        data = study(tasks=TASKS[:1])
        for task in data.answer.tasks:
            task.groups[:] = [
                group.model_copy(update={"interval": None, "cannot_say": "not given, because of looks"})
                for group in task.groups
            ]
        assert "not given, because of looks." in parsed(data).text

    @pytest.mark.usefixtures("without_figures")
    def test_lists_missing_runs(self) -> None:
        data = study(tasks=TASKS[:1])
        task = data.answer.tasks[0]
        task.missing.extend(missing_run("adam", f"worker_lost: number {number}") for number in range(60))
        data.answer.tasks[0] = task.model_copy(
            update={"left_out": LeftOut(unfinished=0, failed=60, cancelled=0, without_metric=0, repeated=0)}
        )
        text = parsed(data).text
        assert "60 runs missing" in text
        assert "worker_lost: number 0" in text
        assert "10 more are in the JSON report." in text
        assert "excluded from the statistics 60 failed" in text

    def test_draws_limited_number_of_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.reports.page.MAX_DRAWN", 1)
        page = parsed(study())
        assert "No figures: only the first 1 tasks have figures." in page.text
        keys = {
            (element["aria-labelledby"] or "").partition("-")[0]
            for element in page.of("svg")
            if element.get("class") == "plot"
        }
        assert keys == {"t1", "all"}

    @pytest.mark.usefixtures("without_figures")
    def test_states_cancellation_with_message(self) -> None:
        data = study(tasks=TASKS[:1])
        answer = data.answer.model_copy(update={"status": ComparisonStatus.CANCELLED, "message": "by ada"})
        text = parsed(StudyData(answer, data.curves)).text
        assert "Cancelled" in text
        assert "by ada" in text


class TestFiles:
    def test_names_are_safe(self) -> None:
        answer = study(name='KO / "Adam"\\..; ÄÖ 优化').answer
        assert file_name(answer, "html") == "ko-adam-c0ffee00.html"
        assert file_name(study(name="优化").answer, "latex") == "comparison-c0ffee00.tex"
        assert len(file_name(study(name="x" * 200).answer, "csv")) < 80

    @pytest.mark.parametrize(
        ("format", "media_type"),
        [("html", "text/html"), ("csv", "text/csv"), ("latex", "text/x-tex"), ("json", "application/json")],
    )
    def test_have_media_types(self, format: Any, media_type: str) -> None:
        data = study(tasks=TASKS[:1], seeds=2)
        report = render(format, data.answer, data.curves)
        assert report.media_type.partition(";")[0] == media_type
        assert report.body

    def test_json_is_the_answer(self) -> None:
        answer = study().answer
        assert ComparisonAnswer.model_validate_json(render("json", answer, {}).body) == answer

    def test_lists_needed_jobs_and_curves(self) -> None:
        data = study(metric="best_test_accuracy", diverged={(0, 1): 1})
        assert set(job_ids(data.answer)) == set(data.curves)
        expected = ["best_test_accuracy", "train_loss", "val_accuracy", "val_loss", "weight_correlation"]
        assert curve_names(data.answer) == expected
