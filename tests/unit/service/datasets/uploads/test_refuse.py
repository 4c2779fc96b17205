"""Uploads that are rejected, with messages that name the place and the remedy."""

import base64
import gzip
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from service.datasets.schemas import FileFormat
from service.datasets.uploads import records
from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import rows_for_test
from service.errors import Invalid
from tests.unit.service.datasets.uploads.errors import LIMIT, error_of
from tests.unit.service.datasets.uploads.files import (
    csv_of,
    folders,
    jsonl_of,
    npz,
    npz_with_header,
    parquet,
    write_file,
)

Y = np.arange(12) % 3
X = np.zeros((12, 4, 4), np.uint8)
ROWS = np.zeros((12, 2))
FORM = b'--1f\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\na,label\n'


def array_with(index: tuple[int, ...], value: float, shape=(12, 2)) -> np.ndarray:
    array = np.zeros(shape)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, "has the arrays a; it needs x and y, or x_train, y_train, x_test and y_test"),
        ({"x": X}, "has the arrays x; it needs x and y"),
        ({"x_train": X, "x": X, "y": Y}, "has the arrays x, x_train, y; use x and y, or x_train and y_train, but not"),
        ({"x_train": X, "x_test": X, "y_test": Y}, "has the arrays x_test, x_train, y_test; it needs x and y, or"),
        ({"x": X, "y": Y, "x_test": X}, "has the arrays x, x_test, y; it needs x and y, or x_train"),
        ({"x": X, "y": Y[:11]}, "y has shape (11,) but x has 12 records"),
        ({"x": X, "y": np.eye(12)[:, :3].astype(int)}, "y has shape (12, 3) but x has 12 records"),
        ({"x": X, "y": Y.astype(float)}, "array 'y' is of type float64; labels must be integers or strings"),
        ({"x": X, "y": Y.astype(complex)}, "array 'y' is of type complex128"),
        ({"x": X, "y": np.array(["a", "b\n", "c"])[Y]}, "y[1]: the label 'b\\n' has unprintable characters"),
        ({"x": X, "y": np.array(["a", " ", "c"])[Y]}, "y[1]: the label is empty"),
        ({"x": X, "y": np.array(["a", "b" * 201, "c"])[Y]}, "y[1]: the label has 201 characters; at most 200"),
        ({"x": X, "y": np.zeros(12, int)}, "all records are of class '0'; at least 2 classes are needed"),
        ({"x": X, "y": np.arange(12)}, "class '0' has 1 record; each class needs at least 3"),
        ({"x": X[:9], "y": Y[:9]}, "the file has 9 records; at least 10 are needed"),
        ({"x": X.astype(str), "y": Y}, "array 'x' holds strings; numbers are needed"),
        ({"x": X[:, :0], "y": Y}, "array 'x' is empty: its shape is (12, 0, 4)"),
        ({"x": X[:, 0, 0], "y": Y}, "array 'x' has shape (12,); images are (N, H, W)"),
        ({"x": np.zeros((12, 4, 4, 4), np.uint8), "y": Y}, "array 'x' has shape (12, 4, 4, 4); images are"),
        ({"x": np.zeros((12, 4, 4, 3, 1), np.uint8), "y": Y}, "array 'x' has shape (12, 4, 4, 3, 1); images are"),
        ({"x": np.zeros((12, 257, 4), np.uint8), "y": Y}, "has 257 x 4 pixels; at most 256 per side"),
        ({"x": X - 1.5, "y": Y}, "the pixels of 'x' range from -1.5 to -1.5; use integers from 0 to 255"),
        ({"x": X.astype(int) + 256, "y": Y}, "the pixels of 'x' range from 256 to 256"),
        ({"x": array_with((3, 1), np.nan), "y": Y}, "x[3, 1] is nan; all numbers must be finite"),
        ({"x": array_with((3, 1), -np.inf), "y": Y}, "x[3, 1] is -inf; all numbers must be finite"),
        ({"x": array_with((7, 1, 2), np.inf, X.shape), "y": Y}, "x[7, 1, 2, 0] is inf; all numbers must be finite"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y},
            "records of x_test have shape (3, 4, 1), but those of x_train (4, 4, 1)",
        ),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "class '3' has no training records"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y[:3]}, "y_test has shape (3,) but x_test has 12 records"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)},
            "must both be integers or both be strings",
        ),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y / 2}, "array 'y_test' is of type float64"),
        ({"x": X, "y": Y[:0]}, "array 'y' is empty: its shape is (0,)"),
    ],
)
def test_rejects_npz(tmp_path, arrays, message):
    assert message in error_of(npz(tmp_path / "a.npz", **arrays), Form("npz"))


@pytest.mark.parametrize(
    ("shape", "dtype", "content", "message"),
    [
        ("(12, 1)", "'|O'", b"\x80\x04", "holds Python objects, which are pickles and can run code"),
        ("(12, 1)", "[('a', '<f8')]", b"", "is of type [('a', '<f8')]; inputs must be numbers"),
        ("(12, 1)", "'<f8'", b"\0" * 8, "array 'x' declares 96 bytes but has"),
        ("(1000000, 1000000, 1000000)", "'|u1'", b"", "declares 1,000,000,000,000,000,000 bytes but has"),
        ("(-12, 1)", "'<f8'", b"", "has the invalid shape (-12, 1)"),
        ("(" * 3000, "'<f8'", b"", "has an invalid header"),
        ("(12, 1)", "__import__('os')", b"", "has an invalid header"),
        ("(0, 10000000000000000000000)", "'<f4'", b"", "array 'x' is empty"),
        ("(1000000000000,)", "'<U0'", b"", "array 'x' is empty"),
        ("(" + "1, " * 70 + ")", "'<f4'", b"\0" * 4, "has the invalid shape (1, 1, "),
        ("(10000001, 1)", "'|u1'", b"\0" * 10_000_001, "the file has more than 10,000,000 records"),
    ],
)
def test_rejects_header_of_array(tmp_path, shape, dtype, content, message):
    assert message in error_of(npz_with_header(tmp_path / "a.npz", shape, dtype, content), Form("npz"))


@pytest.mark.parametrize("order", "<>")
def test_rejects_invalid_character_in_label(tmp_path, order):
    labels = np.array(["a", "b", "c"], f"{order}U1")[Y]
    labels.view(f"{order}u4")[4] = 0x7FFF_FFFF
    assert "y[4]: the label has an invalid character" in error_of(npz(tmp_path / "a.npz", x=X, y=labels), Form("npz"))


def test_limit_counts_numbers_as_stored_in_memory(tmp_path):
    """A byte in the file takes eight bytes in memory."""
    file = npz(tmp_path / "a.npz", x=np.zeros((12, 100), np.uint8), y=Y)
    assert read(file, Form("npz"), 10_000).shape == [100]
    assert "unpacks to more than the limit of 9,000 bytes" in error_of(file, Form("npz"), limit=9000)


def test_does_not_open_pickle(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path(tmp_path / "harmed").touch, ()

    file = tmp_path / "a.npz"
    np.savez(file, x=np.array([Harm()] * 12, dtype=object).reshape(12, 1), y=Y)
    assert "can run code" in error_of(file, Form("npz"))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n", "the first line is empty; it must contain the column names"),
        ("a,b,label\n", "the file has no rows"),
        (csv_of(header="a,b,class"), "label: the file has no label column 'label'; choose one of 'a', 'b', 'class'"),
        (
            csv_of().replace(",", ";"),
            "choose one of 'a;b;label'; the values are separated by semicolons; separate them by commas",
        ),
        (
            csv_of(header="a,b\x00,label"),
            "the column name 'b\\x00' in the first line is unprintable; is this a csv file?",
        ),
        (csv_of(header="a,a,label"), "two columns are named 'a'; column names must be unique"),
        (csv_of(header=",b,label"), "column 1 has no name; name it, or remove it if it is an index"),
        ("label\na\n", "the file has no column besides 'label'"),
        (csv_of().replace("3,1.5,daisy", "3,1.5"), "row 5: Expected 3 columns, got 2"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,daisy,4"), "row 5: Expected 3 columns, got 4"),
        (
            csv_of().replace("3,1.5", "3,so"),
            "row 5, column 'b' is not a number: 'so'; write a column of 1 and 0 for each category",
        ),
        (csv_of().replace("3,1.5", ",1.5"), "row 5, column 'a' is empty"),
        (csv_of().replace("3,1.5", "nan,1.5"), "row 5, column 'a': nan is not a finite number"),
        (csv_of().replace("3,1.5", "3,1e309"), "row 5, column 'b': 1e309 is not a finite number"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,"), "row 5, column 'label': the label is empty"),
        (
            "text,a,label\n" + "so,1,x\n" * 12,
            "row 2, column 'text' is not a number: 'so'; a text data set has only the columns",
        ),
        ("text,label\n" + 'so,x\n" ",x\n' * 6, "row 3, column 'text': the text is empty"),
        (
            "a,label\n1,x\n1,\xff\n".encode("latin-1"),
            "not UTF-8; convert it, for example from Latin-1: iconv -f LATIN1",
        ),
        (b"\xff\xfea\0", "the file is not csv: it is UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
        ("gr\xfcn,label\n".encode("latin-1"), "the first line is not UTF-8; convert it, for example from Latin-1"),
        ("sep=,\n" + csv_of(), "it is text with a line for Excel, 'sep='; remove the first line"),
        (csv_of().replace(",", "\t"), "the values are separated by tabs; separate them by commas"),
        (csv_of(header="a,b,label,"), "column 4 has no name; name it, or remove it if it is an index or if lines end"),
        ("<!DOCTYPE html>\n", "it is an HTML page, perhaps of a login"),
        (base64.b64encode(gzip.compress(csv_of().encode())), "it is base64 text; decode it first: base64 -d"),
        (FORM, "it is a multipart form; send the file itself as the request's body, with `curl -X POST -T FILE`"),
        (b"PK\x03\x04", "the file is not csv: it is a zip archive, an npz file or an Excel file"),
        (b"\x80\x04\x95", "the file is not csv: it is a pickle, which can run code and is never read"),
        ("a" * 2**22, "the first line has 4,194,304 bytes or more"),
        (
            "a,label\n1," + '"' + "x,1\n" * 2**22,
            "a row has more than 8,388,608 bytes; is a closing quotation mark missing?",
        ),
        ("a,label\n" + "".join(f"1,c{row}\n" for row in range(10_001)), "row 10002, column 'label': more than 10,000"),
    ],
)
def test_rejects_csv(tmp_path, content, message):
    assert message in error_of(write_file(tmp_path / "a.csv", content), Form("csv"))


def errors_of(path, form):
    with pytest.raises(Invalid) as caught:
        read(path, form, LIMIT)
    assert caught.value.detail == "; ".join(error.detail for error in caught.value.errors)
    return [error.detail for error in caught.value.errors]


TROUBLE = "id,name,when,a,b,species\n" + "".join(
    f"{row},n{row},{('mon', 'tue')[row % 2]},{'' if row == 9000 else row},{'inf' if row == 3 else 1},{'xy'[row % 2]}\n"
    for row in range(9002)  # more than a batch
)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    file = write_file(tmp_path / "a.csv", TROUBLE)
    assert errors_of(file, Form("csv", "species")) == [
        "does column 'id' identify the rows? All its values differ, and a model could memorize them: leave it "
        "out with drop=id, or read it as numbers with keep=id",
        "row 2, column 'name' is not a number: 'n0'; if it identifies the rows, leave it out with drop=name",
        "row 2, column 'when' is not a number: 'mon'; write a column of 1 and 0 for each category, or leave it out "
        "with drop=when",
        "row 9002, column 'a' is empty; fill gaps, for example with the median of the column",
        "row 5, column 'b': inf is not a finite number",
    ]
    kept = Form("csv", "species", drop=("name", "when", "a", "b"), keep=("id",))
    assert read(file, kept, LIMIT).columns == ["id"]


def test_all_names_that_are_wrong_are_said_at_once(tmp_path):
    errors = errors_of(write_file(tmp_path / "a.csv", "a,a,,b\n1,2,3,4\n"), Form("csv"))
    assert [error.split(";")[0] for error in errors] == [
        "column 3 has no name",
        "two columns are named 'a'",
        "the file has no label column 'label'",
    ]


def test_many_problems_end_the_reading(tmp_path):
    header = ",".join(["label", *(f"c{number}" for number in range(60))])
    errors = errors_of(write_file(tmp_path / "a.csv", header + "\n" + ",".join("x" * 61).join(["", "\n"])), Form("csv"))
    assert len(errors) == 21
    assert errors[-1] == "more columns have problems"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form("csv", drop=("c",)), "drop: the file has no column 'c'"),
        (Form("csv", keep=("c",)), "keep: the file has no column 'c'"),
        (Form("csv", drop=("label",)), "drop: 'label' is the label column"),
        (Form("csv", drop=("a",), keep=("a",)), "keep: column 'a' is also to be left out; choose one"),
        (Form("csv", drop=("a", "b")), "the file has no column besides 'label'"),
    ],
)
def test_rejects_columns_to_drop_or_keep(tmp_path, form, message):
    assert message in error_of(write_file(tmp_path / "a.csv", csv_of()), form)


def test_only_tables_have_columns_to_drop(tmp_path):
    with pytest.raises(Invalid, match="only csv and parquet have named columns; the format is npz"):
        Form("npz", drop=("a",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1.0] * 12}, "the file has no label column 'label'; choose one of 'a'"),
        ({"a": [1.0] * 12, "label": [0.5] * 12}, "the label column 'label' is of type double"),
        ({"a": [1.0] * 12, "label": ["x"] * 11 + [None]}, "row 12, column 'label' is empty"),
        ({"a": [1.0] * 11 + [None], "label": ["x"] * 12}, "row 12, column 'a' is empty"),
        ({"a": [1.0] * 11 + [np.inf], "label": ["x"] * 12}, "row 12, column 'a': inf is not a finite number"),
        ({"a": [[1.0]] * 12, "label": ["x"] * 12}, "column 'a' holds nested values"),
        ({"a": ["so"] * 12, "label": ["x"] * 12}, "row 1, column 'a' is not a number: 'so'"),
        ({"text": [1] * 12, "label": ["x"] * 12}, "column 'text' is of type int64; it must hold strings"),
        ({"a": [], "label": []}, "the file has no rows"),
        ({"a": [b"x"] * 12, "label": ["x"] * 12}, "column 'a' is of type binary; columns must hold numbers or strings"),
        ({"text": ["x" * 2**24 * 3] + ["y"] * 11, "label": ["x"] * 12}, "row 1 has more than 33,554,432 bytes"),
    ],
)
def test_rejects_parquet(tmp_path, columns, message):
    assert message in error_of(parquet(tmp_path / "a.parquet", **columns), Form("parquet"))


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (3, "{", "line 3 is not JSON"),
        (2, "[1]", 'line 2 is not an object with "text" and "label"'),
        (12, '{"text": "x"}', 'line 12 is not an object with "text" and "label"'),
        (2, '{"text": 1, "label": 1}', 'line 2: "text" is not a string'),
        (2, '{"text": " ", "label": 1}', "line 2: the text is empty"),
        (2, '{"text": "\\ud800", "label": 1}', "line 2: the text has an unpaired surrogate"),
        (2, '{"text": "x", "label": 1.5}', 'line 2: "label" is not an integer or a string'),
        (2, '{"text": "x", "label": true}', 'line 2: "label" is not an integer or a string'),
        (2, '{"text": "x", "label": "\\ud800"}', "line 2: the label '\\ud800' has unprintable characters"),
        (2, "[" * 100_000, "line 2 is not JSON"),
        (2, "1" * 5000, "line 2 is not JSON"),
        (2, '"' + "x" * 2**20, "line 2 has more than 1,048,576 bytes"),
        (2, b"\xff".decode("latin-1"), "line 2 is not"),
        (1, "[", "the file is a JSON array; write one object per line"),
    ],
)
def test_rejects_jsonl(tmp_path, number, line, message):
    lines = jsonl_of().splitlines()
    lines[number - 1] = line
    assert message in error_of(write_file(tmp_path / "a.jsonl", "\n".join(lines).encode("latin-1")), Form("jsonl"))


def test_rejects_jsonl_with_one_class_or_without_records(tmp_path):
    one_class = (json.dumps({"text": "x", "label": "a"}) + "\n") * 12
    assert "all records are of class 'a'" in error_of(write_file(tmp_path / "a.jsonl", one_class), Form("jsonl"))
    assert error_of(write_file(tmp_path / "a.jsonl", "\n\n"), Form("jsonl")) == "the file is empty"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_limit_counts_texts_as_stored_in_memory(tmp_path, form):
    """With an emoji, each character takes four bytes, and a text takes at least some 80 bytes."""
    texts, labels = ["\U0001f600" + "x" * 10_000] * 12, ["a", "b", "c"] * 4
    file = tmp_path / "a"
    if form == "csv":
        write_file(file, "text,label\n" + "".join(map("{},{}\n".format, texts, labels)))
    elif form == "parquet":
        parquet(file, text=texts, label=labels)
    else:
        objects = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        write_file(file, "".join(json.dumps(record) + "\n" for record in objects))
    assert len(read(file, Form(form), 500_000).inputs) == 12
    assert "exceed the limit of 400,000 bytes of memory" in error_of(file, Form(form), limit=400_000)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "npz"])
def test_rejects_too_many_records(tmp_path, monkeypatch, form):
    monkeypatch.setattr(records, "MAX_RECORDS", 11)
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "csv": lambda: write_file(tmp_path / "a.csv", csv_of()),
        "jsonl": lambda: write_file(tmp_path / "a.jsonl", jsonl_of()),
    }[form]()
    assert "the file has more than 11 records" in error_of(whole, Form(form))


def test_rejects_texts_in_delta_encoding(tmp_path):
    """Each text can repeat the previous one, so a few bytes unpack to gigabytes, and Arrow does not count them."""
    file = tmp_path / "a.parquet"
    table = pa.table({"text": ["x"] * 12, "label": Y})
    pa.parquet.write_table(table, file, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert "strings in delta encoding are not supported" in error_of(file, Form("parquet"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("text", "exceed the limit of 100,000,000 bytes"),
        ("label", "row 1, column 'label': the label has 200001 characters"),
        ("a", "row 1, column 'a' has more than 1,000 bytes; write a number"),
    ],
)
def test_rejects_huge_repeated_text_before_unpacking_it(tmp_path, column, message):
    """A dictionary turns a small file into gigabytes, which are counted before they are allocated."""
    rows = 2 * 8192
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([" " * 200_000 + "1"]))
    numbers = pa.array(np.arange(rows) % 3)
    columns = {"text": long, "label": numbers} if column == "text" else {"a": numbers, "label": numbers, column: long}
    file = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table(columns), file, store_schema=False)
    assert file.stat().st_size < 10**6
    peak = pa.default_memory_pool().max_memory()
    assert message in error_of(file, Form("parquet"))
    assert pa.default_memory_pool().max_memory() - peak < 2**28


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rejects_table_beyond_limit(tmp_path, form):
    if form == "csv":
        file = write_file(tmp_path / "a", csv_of())
    else:
        file = parquet(tmp_path / "a", a=[1.0] * 12, b=[2.0] * 12, label=["a", "b", "c"] * 4)
    assert "exceed the limit of 50 bytes" in error_of(file, Form(form), limit=50)


@pytest.mark.parametrize("ignored", [{"image_size": 8}, {"label": "kind"}])
def test_rejects_parameter_of_another_format(ignored):
    (name,) = ignored
    formats = {"image_size": ("zip",), "label": ("csv", "parquet")}[name]
    for file_format in get_args(FileFormat):
        if file_format in formats:
            assert Form(file_format, **ignored)
            continue
        with pytest.raises(Invalid, match=f"the format is {file_format}") as caught:
            Form(file_format, **ignored)
        assert caught.value.errors[0].pointer == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,label\n\n\n1,x\nso,y\n", "row 5, column 'a' is not a number: 'so'"),
        ("a,label\n1,x\n\n1, \n", "row 4, column 'label': the label is empty"),
        ("a,label\n1,x\n\n1\n", "row 4: Expected 2 columns, got 1"),
        ('text,label\n\n"a\n\nb",x\n,y\n', "row 4, column 'text': the text is empty"),
    ],
)
def test_empty_lines_count_as_rows(tmp_path, content, message):
    assert message in error_of(write_file(tmp_path / "a.csv", content), Form("csv"))


@pytest.mark.parametrize("form", ["npz", "parquet", "zip"])
def test_rejects_truncated_file(tmp_path, form):
    """At each length the file is rejected with a message, without another exception."""
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "zip": lambda: folders(tmp_path / "a.zip"),
    }[form]()
    raw = whole.read_bytes()
    read(whole, Form(form), LIMIT)
    for length in range(0, len(raw), max(1, len(raw) // 40)):
        error_of(write_file(tmp_path / "cut", raw[:length]), Form(form))


@pytest.mark.parametrize("form", ["npz", "parquet", "zip", "csv", "jsonl"])
def test_corrupted_file_is_rejected_or_read(tmp_path, form):
    """The file is rejected with a message or read as other data, without another exception or a warning."""
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "zip": lambda: folders(tmp_path / "a.zip"),
        "csv": lambda: write_file(tmp_path / "a.csv", csv_of()),
        "jsonl": lambda: write_file(tmp_path / "a.jsonl", jsonl_of()),
    }[form]()
    raw = whole.read_bytes()
    draw = np.random.default_rng(0)
    accepted, messages = 0, set()
    for _ in range(150):
        changed = bytearray(raw)
        for position in draw.integers(0, len(raw), 2):
            changed[position] = draw.integers(0, 256)
        try:
            rows_for_test(read(write_file(tmp_path / "changed", bytes(changed)), Form(form), LIMIT))
            accepted += 1
        except Invalid as error:
            messages.add(error.detail)
    assert accepted < 150
    assert all(messages)
