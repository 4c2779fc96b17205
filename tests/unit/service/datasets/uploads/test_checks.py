"""Warnings about the records of an upload as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from service.datasets.uploads.checks import warnings_of
from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import Records, rows_for_test
from service.errors import Invalid
from tests.unit.service.datasets.uploads.errors import LIMIT
from tests.unit.service.datasets.uploads.files import npz, parquet, write_file

DRAW = np.random.default_rng(0)
LABELS = np.arange(60) % 3


def records_of(kind: Any, inputs: Any, classes: list[str] | None = None, **options: Any) -> Records:
    labels = options.pop("labels", LABELS[: len(inputs)])
    return Records(kind, inputs, labels, classes or ["a", "b", "c"], **options)


def warnings(records: Records) -> list[str]:
    return warnings_of(records, rows_for_test(records))


def column_warnings(values: Any, name: str = "value") -> list[str]:
    """Warnings about a table of a column of noise and one with these values."""
    values = np.asarray(values, np.float64)
    rows = np.stack([DRAW.normal(size=len(values)), values], 1)
    return warnings(records_of("table", rows, columns=["noise", name], labels=np.arange(len(values)) % 3))


def test_ordinary_records_have_no_warnings() -> None:
    assert column_warnings(DRAW.normal(size=60)) == []
    assert warnings(records_of("image", DRAW.integers(0, 256, (60, 4, 4, 1), np.uint8))) == []
    assert warnings(records_of("text", [f"a text about number {row}" for row in range(60)])) == []


class TestClasses:
    def test_imbalance(self) -> None:
        def of(largest: int) -> list[str]:
            labels = np.array([0] * largest + [1] * 3)
            return warnings(records_of("table", DRAW.normal(size=(len(labels), 2)), ["x", "y"], labels=labels))

        assert of(30) == []
        (warning,) = of(31)
        assert "'x' has 31 records and 'y' has 3" in warning
        assert "91%" in warning

    @pytest.mark.parametrize("other", [" Cat", "CAT", "c\u200dat", "\uff43at", "cat\u00a0"])
    def test_names_that_look_alike(self, other: str) -> None:
        (warning,) = warnings(records_of("table", DRAW.normal(size=(60, 2)), [other, "cat", "dog"]))
        assert warning.startswith("The classes ")
        assert ascii(other) in warning


class TestRepetitions:
    def test_test_records_in_training_part(self) -> None:
        x = DRAW.normal(size=(60, 2))
        is_test = np.arange(60) >= 48
        for repeated, text in [
            (1, "1 of 12 test records also occurs in the training part, where it can"),
            (2, "2 of 12 test records also occur in the training part, where they can"),
        ]:
            x[50 : 50 + repeated] = x[2 : 2 + repeated]
            labels = np.r_[LABELS[:50], LABELS[2 : 2 + repeated], LABELS[50 + repeated :]]
            (warning,) = warnings(records_of("table", x, is_test=is_test, labels=labels))
            assert warning.startswith(text)

    def test_equal_records_with_other_labels(self) -> None:
        x = DRAW.normal(size=(60, 2))
        x[1] = x[0]
        assert "1 record also occurs with another label." in warnings(records_of("table", x))

    @pytest.mark.parametrize("kind", ["image", "text"])
    def test_equal_records(self, kind: str) -> None:
        inputs = ["one text"] * 60 if kind == "text" else np.full((60, 4, 4, 1), 255, np.uint8)
        assert "All 60 records are equal, so that there is nothing to learn." in warnings(records_of(kind, inputs))


def test_images_of_one_color() -> None:
    images = DRAW.integers(0, 256, (60, 4, 4, 3), np.uint8)
    images[::3] = images[::3, :1, :1]
    assert warnings(records_of("image", images)) == ["20 of 60 images have a single color."]


class TestColumns:
    def test_constant(self) -> None:
        assert column_warnings([7] * 60) == ["Constant, so that nothing can be learned from it: 'value'."]

    @pytest.mark.parametrize("values", [np.arange(60), np.arange(60)[::-1] + 5, DRAW.permutation(1000)[:60]])
    def test_row_numbers(self, values: np.ndarray) -> None:
        (warning,) = column_warnings(values)
        assert warning.startswith("Different in each row, or named as a row number: 'value'.")

    @pytest.mark.parametrize("name", ["Unnamed: 0", "ID", "row_id", "__index_level_0__", "Row Number", "index"])
    def test_names_of_row_numbers(self, name: str) -> None:
        (warning,) = column_warnings(np.arange(60) // 2 + 0.5, name)
        assert f"named as a row number: '{name}'" in warning

    def test_few_different_whole_numbers_are_no_row_numbers(self) -> None:
        assert column_warnings([3, 9, 4, 1, 7, 30, 8, 2, 11, 14, 5, 6]) == []

    def test_rounding_of_large_whole_numbers(self) -> None:
        assert any(
            "Whole numbers above 2^53 are rounded: 'value'" in text for text in column_warnings(2.0**53 + LABELS)
        )

    def test_values_that_scaling_makes_equal(self) -> None:
        values = [*range(59), 1e12]
        (warning,) = column_warnings([value + 0.5 for value in values])
        assert warning.startswith("Scaled to 32 bits, values become equal: 'value' (")
        assert "of 60 different values)" in warning

    def test_checks_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.datasets.uploads.checks.CHECKED", 30)
        assert column_warnings(np.arange(60)) == column_warnings(np.arange(60))
        assert column_warnings([1, 2] * 30)[0].startswith("Constant")  # every second row is looked at


class TestWords:
    def test_refuses_texts_without_words(self) -> None:
        with pytest.raises(Invalid, match="no text contains a word"):
            warnings(records_of("text", ["???", "!!!", "\U0001f600 \u2764\ufe0f"] * 20))

    def test_texts_without_words_among_others(self) -> None:
        texts = [f"a text about {row}" if row else "!!!" for row in range(60)]
        assert warnings(records_of("text", texts)) == ["1 of 60 texts contains no word (a run of letters or digits)."]

    def test_texts_that_differ_in_signs_only(self) -> None:
        texts = [f"a text{'!' * (row % 20)} about {row // 20}" for row in range(60)]
        assert "60 different texts have only 3 different sequences of words" in warnings(records_of("text", texts))[-1]

    def test_texts_without_spaces_between_words(self) -> None:
        texts = ["".join(chr(0x4E00 + int(code)) for code in DRAW.integers(0, 99, 9)) for _ in range(60)]
        (warning,) = warnings(records_of("text", texts))
        assert warning.startswith("60 of 60 texts share no word with another text.")


def test_array_that_is_not_read_is_named(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=DRAW.normal(size=(60, 2)), y=LABELS, weights=LABELS)
    (warning,) = read(file, Form("npz"), LIMIT).warnings
    assert warning.startswith("Not used: weights.")


def test_test_part_beside_x_and_y_is_used(tmp_path: Path) -> None:
    x = DRAW.normal(size=(60, 2))
    file = npz(tmp_path / "a.npz", x=x[:50], y=LABELS[:50], x_test=x[50:], y_test=LABELS[50:])
    records = read(file, Form("npz"), LIMIT)
    assert records.is_test is not None
    assert records.is_test.tolist() == [False] * 50 + [True] * 10


def test_row_numbers_of_data_frames(tmp_path: Path) -> None:
    """As csv the index has a name that gives it away; in parquet, the metadata names it."""
    lines = [f"{row},{value:.4f},{'abc'[row % 3]}" for row, value in enumerate(DRAW.normal(size=60))]
    file = write_file(tmp_path / "a.csv", "\n".join(["Unnamed: 0,a,label", *lines]))
    (warning,) = warnings(read(file, Form("csv", keep=("Unnamed: 0",)), LIMIT))
    assert "'Unnamed: 0'" in warning
    assert read(file, Form("csv", drop=("Unnamed: 0",)), LIMIT).columns == ["a"]


@pytest.mark.parametrize("label", ["label", "__index_level_0__"])
def test_index_of_parquet_is_left_out(tmp_path: Path, label: str) -> None:
    table = pa.table({"a": DRAW.normal(size=60), "label": LABELS, "__index_level_0__": LABELS})
    table = table.replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__", {"kind": "range"}]}'})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    records = read(tmp_path / "a.parquet", Form("parquet", label), LIMIT)
    if label == "label":
        assert records.columns == ["a"]
        assert records.notes == ["The index that pandas stored (__index_level_0__) is left out."]
    else:
        assert (records.columns, records.notes) == (["a", "label"], [])


def test_truth_values_are_equal_in_csv_and_parquet(tmp_path: Path) -> None:
    truth = [row % 2 == 0 for row in range(60)]
    rows = "".join(f"{value},{'TRUE' if value else ' false '},{row % 3}\n" for row, value in enumerate(truth))
    as_csv = read(write_file(tmp_path / "a.csv", "up,down,label\n" + rows), Form("csv"), LIMIT)
    as_parquet = read(parquet(tmp_path / "a.parquet", up=truth, down=truth, label=LABELS), Form("parquet"), LIMIT)
    np.testing.assert_array_equal(as_csv.inputs, as_parquet.inputs)


@pytest.mark.parametrize("kind", ["string_view", "large_string", "dictionary"])
def test_strings_of_newer_writers(tmp_path: Path, kind: str) -> None:
    texts = pa.array([f"a text about {row}" for row in range(60)])
    labels = pa.array(["up", "down", "left"] * 20)
    target = {"string_view": pa.string_view(), "large_string": pa.large_string()}.get(kind)
    columns = [column.cast(target) if target else column.dictionary_encode() for column in (texts, labels)]
    file = parquet(tmp_path / "a.parquet", text=columns[0], label=columns[1])
    records = read(file, Form("parquet"), LIMIT)
    assert (records.inputs, records.classes) == (texts.to_pylist(), ["down", "left", "up"])


def test_columns_are_composed(tmp_path: Path) -> None:
    file = write_file(
        tmp_path / "a.csv", "cafe\u0301,me\u0301tier\n" + "".join(f"{row},{row % 3}\n" for row in range(60))
    )
    records = read(file, Form("csv", "m\u00e9tier"), LIMIT)
    assert records.columns == ["caf\u00e9"]
