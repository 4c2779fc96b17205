"""The CSV report: rows, numbers and quoting."""

import csv
import io
import json

import pytest

from service.reports.rendering import render
from tests.unit.service.reports.studies import TASKS, StudyData, study
from tests.unit.service.reports.unfinished import unfinished_answer


def rows(data: StudyData) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render("csv", data.answer, {}).body, newline=""), strict=True))


class TestRows:
    def test_has_one_row_per_task_and_optimizer(self) -> None:
        data = study()
        expected = [(task.label, group.label) for task in data.answer.tasks for group in task.groups]
        assert [(row["task"], row["optimizer"]) for row in rows(data)] == expected

    def test_lines_end_with_crlf(self) -> None:
        body = render("csv", study().answer, {}).body
        assert body.count("\r\n") == body.count("\n") == 9

    def test_numbers_round_trip_exactly(self) -> None:
        data = study()
        first, group = rows(data)[0], data.answer.tasks[0].groups[0]
        assert (float(first["mean"]), float(first["sd"])) == (group.mean, group.sd)
        assert (float(first["interval_low"]), float(first["interval_high"])) == group.interval
        assert json.loads(first["parameters"]) == group.optimizer["params"]
        assert first["jobs"].split() == [str(job) for job in group.jobs]

    def test_differences_are_relative_to_best(self) -> None:
        data = study()
        task = data.answer.tasks[0]
        best, second = rows(data)[:2]
        pair = next(pair for pair in task.pairs if {pair.a, pair.b} == {best["optimizer"], second["optimizer"]})
        assert pair.a == best["optimizer"]
        assert pair.difference is not None
        assert pair.interval is not None
        assert float(second["difference_to_best"]) == -pair.difference < 0
        assert float(second["difference_low"]) == -pair.interval[1]
        assert float(second["difference_high"]) == -pair.interval[0]
        assert best["difference_to_best"] == best["p_adjusted"] == ""

    def test_zero_difference_has_no_sign(self) -> None:
        data = study(tasks=TASKS[:1])
        task = data.answer.tasks[0]
        same = {"difference": 0.0, "interval": (0.0, 0.0)}
        data.answer.tasks[0] = task.model_copy(update={"pairs": [pair.model_copy(update=same) for pair in task.pairs]})
        assert {row["difference_to_best"] for row in rows(data)[1:]} == {"0.0"}
        assert "-0.0" not in render("csv", data.answer, {}).body

    @pytest.mark.parametrize("label", ["=1+1", "+a", "-a", "@a", "＝a", " =a"])
    def test_escapes_spreadsheet_formula(self, label: str) -> None:
        data = study(tasks=TASKS[:1])
        group = data.answer.tasks[0].groups[0].model_copy(update={"label": label})
        data.answer.tasks[0].groups[0] = group
        assert rows(data)[0]["optimizer"] == f"'{label}"

    def test_negative_number_is_not_escaped(self) -> None:
        assert any(row["difference_to_best"].startswith("-") for row in rows(study()))

    def test_quotes_commas_and_line_breaks_round_trip(self) -> None:
        data = study(tasks=TASKS[:1])
        label = 'a "b", c\r\nd'
        data.answer.tasks[0].groups[0] = data.answer.tasks[0].groups[0].model_copy(update={"label": label})
        assert rows(data)[0]["optimizer"] == label

    def test_missing_values_are_empty(self) -> None:
        unfinished = rows(StudyData(unfinished_answer()))
        assert {row["mean"] for row in unfinished} == {""}
        assert {row["n"] for row in unfinished} == {"0"}
        assert unfinished[0]["parameters"] == "{}"  # no trial has been chosen
        assert "None" not in render("csv", unfinished_answer(), {}).body

    def test_non_finite_numbers_are_empty(self) -> None:
        data = study(tasks=TASKS[:1])
        group = data.answer.tasks[0].groups[0].model_copy(update={"mean": float("nan"), "best": float("inf")})
        data.answer.tasks[0].groups[0] = group
        assert (rows(data)[0]["mean"], rows(data)[0]["best"]) == ("", "")
