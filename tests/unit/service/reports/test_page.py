"""The HTML report, read as a browser would: what is in it, and that nothing else is."""

import html
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from service.comparisons.answers import ComparisonAnswer, LeftOut
from service.reports.formats import curve_names, file_name, job_ids, render
from service.specs.states import ComparisonStatus
from tests.unit.service.reports.studies import TASKS, Made, missing_run, study, waiting

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
    """The elements of a page; complains where they are not closed as they were opened."""

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


def page(made: Made) -> Page:
    return Page(render("html", made.answer, made.curves).body)


def changed(answer: ComparisonAnswer, **changes: Any) -> Made:
    return Made(answer.model_copy(update=changes))


CASES = {
    "usual": lambda: study(),
    "diverged": lambda: study(diverged={(1, 3): 1, (0, 0): 5}),
    "twelve": lambda: study(optimizers=TWELVE, tasks=TASKS[:1], diverged={(0, 4): 2}),
    "one seed": lambda: study(seeds=1),
    "two seeds": lambda: study(seeds=2),
    "loss": lambda: study(metric="test_loss", seeds=6, diverged={(0, 1): 2}),
    "speed": lambda: study(metric="samples_per_second", tasks=TASKS[:1]),
    "without curves": lambda: study(with_curves=False),
    "eight tasks": lambda: study(
        tasks=[{**TASKS[0], "batch_size": 16 + number} for number in range(8)],
        optimizers=TWELVE[2:5],
        critical_difference=1.5,
        seeds=3,
    ),
    "waiting": lambda: Made(waiting()),
    "no task": lambda: changed(study().answer, tasks=[], across=None, verdict=[], assumptions=[]),
}


@cache
def rendered(case: str) -> tuple[str, Page]:
    """The body and its elements; drawn once."""
    made = CASES[case]()
    body = render("html", made.answer, made.curves).body
    return body, Page(body)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Page]:
    return rendered(request.param)


class TestAnyAnswer:
    def test_is_a_whole_page_on_its_own(self, case: tuple[str, Page]) -> None:
        body, found = case
        assert body.startswith("<!DOCTYPE html>")
        assert not found.of("script")
        assert "://" not in body
        assert not re.findall(r"@import|url\((?!#)", body)
        for tag in ("a", "use"):
            assert all((one.get("href") or "").startswith("#") for one in found.of(tag))
        assert [one["href"] for one in found.of("link")] == ["data:,"]

    def test_ids_are_unique_and_links_lead_to_them(self, case: tuple[str, Page]) -> None:
        _, found = case
        ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        targets = {(one["href"] or "")[1:] for one in [*found.of("a"), *found.of("use")]}
        assert targets <= set(ids)

    def test_says_nothing_that_means_nothing(self, case: tuple[str, Page]) -> None:
        _, found = case
        assert not re.findall(r"\b(None|nan|NaN|inf|Infinity)\b", found.text)
        numbers = [
            value or "" for _, attributes in found.elements for name, value in attributes.items() if name != "class"
        ]
        assert not [value for value in numbers if re.search(r"\bnan\b|\binf\b", value)]

    def test_figures_are_described(self, case: tuple[str, Page]) -> None:
        _, found = case
        plots = [one for one in found.of("svg") if one.get("class") == "plot"]
        assert len(plots) == len(found.of("figure")) == len(found.of("figcaption"))
        for one in plots:
            assert one["role"] == "img"
            assert one["aria-labelledby"]


class TestUsual:
    def test_is_small(self) -> None:
        assert len(rendered("usual")[0].encode()) < 600_000

    def test_tells_the_verdict_first(self) -> None:
        made, (_, found) = study(), rendered("usual")
        text = found.text
        sentence = made.answer.tasks[0].verdict.text
        assert text.index(sentence) < text.index("Scores")
        assert "88 of 88 runs ended" in text

    def test_has_every_figure(self) -> None:
        found = rendered("usual")[1].text
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
            assert title in found
        assert "No figure of" not in found

    def test_has_the_numbers_of_groups_and_pairs(self) -> None:
        text = rendered("usual")[1].text
        assert "ko soft (adam) 5 96.67 ± 0.17 96.46 to 96.87 96.87" in text
        assert "Jobs shared their machine with other jobs" in text

    def test_tells_what_it_rests_on(self) -> None:
        made, text = study(), rendered("usual")[1].text
        assert "✓ holds Pairing." in text
        assert "✗ violated Undisturbed timing." in text
        assert "? unknown Symmetry of differences." in text
        assert made.answer.methods in text
        assert "3 existing runs were reused: 2 by ada and 1 by grace." in text
        assert f"/v1/comparisons/{made.answer.id}/report?format=csv" in text
        assert "2026-11-24 12:00 UTC" in text

    def test_is_the_same_each_time(self) -> None:
        made = study()
        assert render("html", made.answer, made.curves).body == rendered("usual")[0]


class TestAwkward:
    def test_what_users_write_is_text(self) -> None:
        name = '<b>ours</b> & "theirs" \' {{ 7 * 7 }} </style></title><script>alert(1)</script>'
        made = study(name=name, tasks=TASKS[:1])
        made.answer.tags["<i>"] = "<img src=x onerror=alert(1)>"
        body = render("html", made.answer, made.curves).body
        found = Page(body)
        assert found.of("script") == found.of("img") == found.of("i") == []
        assert name in found.text
        assert html.escape(name, quote=False) in body.replace("&#34;", '"').replace("&#39;", "'")

    def test_a_figure_that_cannot_be_drawn_is_told(self) -> None:
        text = rendered("waiting")[1].text
        assert "No final run has a result yet." in text
        assert "no trial has ended yet" in text
        assert "choosing parameters: 6 of at most 88 runs ended" in text

    def test_many_pairs_are_drawn_against_the_best_alone(self) -> None:
        text = rendered("twelve")[1].text
        assert "the other 55 are in the table" in text
        assert all(one["label"] in text for one in TWELVE)

    def test_without_ranks_to_test_it_says_why(self) -> None:
        text = rendered("usual")[1].text
        assert "Descriptive only, without a significance test. Friedman's test: it needs 8 tasks or more." in text

    def test_looks_leave_the_intervals_of_means_out(self) -> None:
        made = study()
        for task in made.answer.tasks:
            task.groups[:] = [
                group.model_copy(update={"interval": None, "cannot_say": "not given, because of looks"})
                for group in task.groups
            ]
        assert "not given, because of looks." in page(made).text

    def test_missing_runs_are_listed(self) -> None:
        made = study()
        task = made.answer.tasks[0]
        task.missing.extend(missing_run("adam", f"worker_lost: number {number}") for number in range(60))
        made.answer.tasks[0] = task.model_copy(
            update={"left_out": LeftOut(unfinished=0, failed=60, cancelled=0, without_metric=0, repeated=0)}
        )
        text = page(made).text
        assert "60 runs missing" in text
        assert "worker_lost: number 0" in text
        assert "10 more are in the JSON report." in text
        assert "excluded from the statistics 60 failed" in text

    def test_many_tasks_are_not_all_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.reports.page.MOST_DRAWN", 1)
        found = page(study())
        assert "No figures: only the first 1 tasks have figures." in found.text
        keys = {
            (one["aria-labelledby"] or "").partition("-")[0] for one in found.of("svg") if one.get("class") == "plot"
        }
        assert keys == {"t1", "all"}

    def test_a_cancelled_comparison_says_so(self) -> None:
        made = study()
        answer = made.answer.model_copy(update={"status": ComparisonStatus.CANCELLED, "message": "by ada"})
        text = page(Made(answer, made.curves)).text
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
    def test_say_what_they_are(self, format: Any, media_type: str) -> None:
        made = study(tasks=TASKS[:1], seeds=2)
        report = render(format, made.answer, made.curves)
        assert report.media_type.partition(";")[0] == media_type
        assert report.body

    def test_json_is_the_answer(self) -> None:
        answer = study().answer
        assert ComparisonAnswer.model_validate_json(render("json", answer, {}).body) == answer

    def test_curves_that_are_needed(self) -> None:
        made = study(metric="best_test_accuracy", diverged={(0, 1): 1})
        assert set(job_ids(made.answer)) == set(made.curves)
        expected = ["best_test_accuracy", "train_loss", "val_accuracy", "val_loss", "weight_correlation"]
        assert curve_names(made.answer) == expected
