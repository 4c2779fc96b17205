"""The CSV report."""

import csv
import io
import json

import pytest

from service.reports.formats import render
from tests.unit.service.reports.studies import TASKS, Made, study, waiting


def rows(made: Made) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render("csv", made.answer, {}).body, newline=""), strict=True))


class TestRows:
    def test_there_is_one_for_each_task_and_optimizer(self) -> None:
        made = study()
        expected = [(task.label, group.label) for task in made.answer.tasks for group in task.groups]
        assert [(row["task"], row["optimizer"]) for row in rows(made)] == expected

    def test_lines_end_as_the_standard_says(self) -> None:
        body = render("csv", study().answer, {}).body
        assert body.count("\r\n") == body.count("\n") == 9

    def test_numbers_come_back_to_the_bit(self) -> None:
        made = study()
        first, group = rows(made)[0], made.answer.tasks[0].groups[0]
        assert (float(first["mean"]), float(first["sd"])) == (group.mean, group.sd)
        assert (float(first["interval_low"]), float(first["interval_high"])) == group.interval
        assert json.loads(first["parameters"]) == group.optimizer["params"]
        assert first["jobs"].split() == [str(job) for job in group.jobs]

    def test_differences_are_seen_from_the_row(self) -> None:
        made = study()
        task = made.answer.tasks[0]
        best, second = rows(made)[:2]
        pair = next(pair for pair in task.pairs if {pair.a, pair.b} == {best["optimizer"], second["optimizer"]})
        assert pair.a == best["optimizer"]
        assert pair.difference is not None
        assert pair.interval is not None
        assert float(second["difference_to_best"]) == -pair.difference < 0
        assert float(second["difference_low"]) == -pair.interval[1]
        assert float(second["difference_high"]) == -pair.interval[0]
        assert best["difference_to_best"] == best["p_adjusted"] == ""

    def test_no_difference_has_no_sign(self) -> None:
        made = study(tasks=TASKS[:1])
        task = made.answer.tasks[0]
        same = {"difference": 0.0, "interval": (0.0, 0.0)}
        made.answer.tasks[0] = task.model_copy(update={"pairs": [pair.model_copy(update=same) for pair in task.pairs]})
        assert {row["difference_to_best"] for row in rows(made)[1:]} == {"0.0"}
        assert "-0.0" not in render("csv", made.answer, {}).body

    @pytest.mark.parametrize("label", ["=1+1", "+a", "-a", "@a", "＝a", " =a"])
    def test_text_is_no_formula(self, label: str) -> None:
        made = study(tasks=TASKS[:1])
        group = made.answer.tasks[0].groups[0].model_copy(update={"label": label})
        made.answer.tasks[0].groups[0] = group
        assert rows(made)[0]["optimizer"] == f"'{label}"

    def test_a_negative_number_is_a_number(self) -> None:
        assert any(row["difference_to_best"].startswith("-") for row in rows(study()))

    def test_quotes_commas_and_lines_survive(self) -> None:
        made = study(tasks=TASKS[:1])
        label = 'a "b", c\r\nd'
        made.answer.tasks[0].groups[0] = made.answer.tasks[0].groups[0].model_copy(update={"label": label})
        assert rows(made)[0]["optimizer"] == label

    def test_what_is_not_known_is_empty(self) -> None:
        found = rows(Made(waiting()))
        assert {row["mean"] for row in found} == {""}
        assert {row["n"] for row in found} == {"0"}
        assert found[0]["parameters"] == "{}"  # not those of the first trial, which nobody chose
        assert "None" not in render("csv", waiting(), {}).body

    def test_no_number_that_is_none(self) -> None:
        made = study(tasks=TASKS[:1])
        group = made.answer.tasks[0].groups[0].model_copy(update={"mean": float("nan"), "best": float("inf")})
        made.answer.tasks[0].groups[0] = group
        assert (rows(made)[0]["mean"], rows(made)[0]["best"]) == ("", "")
