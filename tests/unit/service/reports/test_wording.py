"""Formatting of numbers, times and labels in reports."""

from datetime import datetime, timedelta, timezone

import pytest

from service.reports import wording
from service.reports.wording import Scale
from service.specs.text import counted


class TestScale:
    def test_accuracies_are_percentages(self) -> None:
        scale = Scale("val_accuracy")
        assert scale.with_unit == "validation accuracy (%)"
        assert scale.text(0.96951, 2) == "96.95"
        assert scale.interval((-0.003, 0.01), 1) == "−0.3 to 1.0"
        assert scale.with_percent(0.1) == "10 %"

    def test_losses_are_unscaled(self) -> None:
        assert Scale("test_loss").with_unit == "test loss"
        assert Scale("test_loss").text(0.12345, 3) == "0.123"

    @pytest.mark.parametrize(
        ("metric", "spreads", "decimals"),
        [
            ("test_accuracy", [0.0029, 0.0020], 2),
            ("test_accuracy", [0.1], 1),
            ("test_accuracy", [1e-9], 3),
            ("test_accuracy", [None, 0.0, float("nan")], 2),
            ("test_loss", [0.0042], 4),
            ("test_loss", [12.0], 0),
            ("test_loss", [], 4),
        ],
    )
    def test_decimals_show_two_digits_of_the_spread(
        self, metric: str, spreads: list[float | None], decimals: int
    ) -> None:
        assert Scale(metric).decimals(spreads) == decimals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.fixed(-0.0001, 2), "0.00"),
        (wording.fixed(float("inf"), 2), ""),
        (wording.number(0.0030000000000000005), "0.003"),
        (wording.number(1e-8), "1e-8"),
        (wording.number(-2.5), "−2.5"),
        (wording.number([0.9, 0.999]), "[0.9, 0.999]"),
        (wording.number(True), "true"),
        (wording.number("cosine"), "cosine"),
        (wording.number(None), ""),
        (wording.count(85002), "85,002"),
        (wording.moment(datetime(2026, 11, 24, 1, 30, tzinfo=timezone(timedelta(hours=2)))), "2026-11-23 23:30 UTC"),
        (wording.parameters({"lr": 0.003, "none": None, "name": "x"}), "lr 0.003, name x"),
        (wording.space({"log_uniform": [0.0003, 0.03], "choice": None}), "0.0003 to 0.03 (logarithmic)"),
        (wording.space({"choice": ["a", 2, None]}), "one of a, 2 or null"),
        (counted(1, "run"), "1 run"),
        (wording.shortened("abcdefghij", 7), "abc…hij"),
    ],
)
def test_formats_value(text: str, expected: str) -> None:
    assert text == expected


def test_shortened_labels_are_distinct() -> None:
    labels = [f"{'a' * 20}{letter}{'b' * 20}" for letter in "xyz"]
    shortened = wording.all_shortened(labels, 16)
    assert len(set(shortened)) == 3
    assert all(len(text) <= 16 for text in shortened)
