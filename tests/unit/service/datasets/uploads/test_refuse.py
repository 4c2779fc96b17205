"""What is refused, and in which words: each names the place and what would be right."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from service.datasets.schemas import FileFormat
from service.datasets.uploads import records
from service.datasets.uploads.formats import Form, read
from service.datasets.uploads.records import rows_for_test
from service.errors import Invalid
from tests.unit.service.datasets.uploads.files import (
    csv_of,
    declaring,
    folders,
    jsonl_of,
    npz,
    parquet,
    written,
)
from tests.unit.service.datasets.uploads.refusing import LIMIT, refused

Y = np.arange(12) % 3
X = np.zeros((12, 4, 4), np.uint8)
ROWS = np.zeros((12, 2))


def at(place: tuple[int, ...], value: float, shape=(12, 2)) -> np.ndarray:
    array = np.zeros(shape)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": X}, "has the arrays a; it needs x and y, or x_train, y_train, x_test and y_test"),
        ({"x": X, "y": Y[:11]}, "y has shape (11,) and x 12 records"),
        ({"x": X, "y": np.eye(12)[:, :3].astype(int)}, "y has shape (12, 3) and x 12 records"),
        ({"x": X, "y": Y.astype(float)}, "array 'y' is of type float64; labels are integers or texts"),
        ({"x": X, "y": Y.astype(complex)}, "array 'y' is of type complex128"),
        ({"x": X, "y": np.array(["a", "b\n", "c"])[Y]}, "y[1]: the label 'b\\n' has characters that cannot be shown"),
        ({"x": X, "y": np.array(["a", " ", "c"])[Y]}, "y[1]: the label is empty"),
        ({"x": X, "y": np.array(["a", "b" * 201, "c"])[Y]}, "y[1]: the label has 201 characters; at most 200"),
        ({"x": X, "y": np.zeros(12, int)}, "all records are of class '0'; at least 2 classes are needed"),
        ({"x": X, "y": np.arange(12)}, "class '0' has 1 record; each needs at least 3"),
        ({"x": X[:9], "y": Y[:9]}, "there are 9 records; at least 10 are needed"),
        ({"x": X.astype(str), "y": Y}, "array 'x' holds texts; numbers are needed"),
        ({"x": X[:, :0], "y": Y}, "array 'x' is empty: its shape is (12, 0, 4)"),
        ({"x": X[:, 0, 0], "y": Y}, "array 'x' has shape (12,); images are (N, H, W)"),
        ({"x": np.zeros((12, 4, 4, 4), np.uint8), "y": Y}, "array 'x' has shape (12, 4, 4, 4); images are"),
        ({"x": np.zeros((12, 4, 4, 3, 1), np.uint8), "y": Y}, "array 'x' has shape (12, 4, 4, 3, 1); images are"),
        ({"x": np.zeros((12, 257, 4), np.uint8), "y": Y}, "has 257 x 4 pixels; at most 256 a side"),
        ({"x": X - 1.5, "y": Y}, "the pixels of 'x' are from -1.5 to -1.5; whole numbers from 0 to 255 are read"),
        ({"x": X.astype(int) + 256, "y": Y}, "the pixels of 'x' are from 256 to 256"),
        ({"x": at((3, 1), np.nan), "y": Y}, "x[3, 1] is nan: only finite numbers"),
        ({"x": at((3, 1), 1e300), "y": Y}, "x[3, 1] is inf: only finite numbers"),
        ({"x": at((7, 1, 2), np.inf, X.shape), "y": Y}, "x[7, 1, 2, 0] is inf: only finite numbers"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y},
            "a record of x_test has shape (3, 4, 1), and one of x_train (4, 4, 1)",
        ),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "class '3' is in the test part only"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y[:3]}, "y_test has shape (3,) and x_test 12 records"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, "both integers or both texts"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y / 2}, "array 'y_test' is of type float64"),
        ({"x": X, "y": Y[:0]}, "array 'y' is empty: its shape is (0,)"),
    ],
)
def test_npz(tmp_path, arrays, sentence):
    assert sentence in refused(npz(tmp_path / "a.npz", **arrays), Form("npz"))


@pytest.mark.parametrize(
    ("shape", "dtype", "content", "sentence"),
    [
        ("(12, 1)", "'|O'", b"\x80\x04", "holds Python objects, which are pickles and could run code"),
        ("(12, 1)", "[('a', '<f8')]", b"", "is of type [('a', '<f8')]; numbers"),
        ("(12, 1)", "'<f8'", b"\0" * 8, "array 'x' declares 96 bytes and has"),
        ("(1000000, 1000000, 1000000)", "'|u1'", b"", "declares 1,000,000,000,000,000,000 bytes and has"),
        ("(-12, 1)", "'<f8'", b"", "has the impossible shape (-12, 1)"),
        ("(" * 3000, "'<f8'", b"", "has no header that can be read"),
        ("(12, 1)", "__import__('os')", b"", "has no header that can be read"),
        ("(0, 10000000000000000000000)", "'<f4'", b"", "array 'x' is empty"),
        ("(1000000000000,)", "'<U0'", b"", "array 'x' is empty"),
        ("(" + "1, " * 70 + ")", "'<f4'", b"\0" * 4, "has the impossible shape (1, 1, "),
        ("(10000001, 1)", "'|u1'", b"\0" * 10_000_001, "there are more than 10,000,000 records"),
    ],
)
def test_headers_of_arrays(tmp_path, shape, dtype, content, sentence):
    assert sentence in refused(declaring(tmp_path / "a.npz", shape, dtype, content), Form("npz"))


@pytest.mark.parametrize("order", "<>")
def test_letters_that_are_none(tmp_path, order):
    labels = np.array(["a", "b", "c"], f"{order}U1")[Y]
    labels.view(f"{order}u4")[4] = 0x7FFF_FFFF
    assert "y[4]: the label has a letter that is none" in refused(npz(tmp_path / "a.npz", x=X, y=labels), Form("npz"))


def test_numbers_of_a_table_count_as_they_are_kept(tmp_path):
    """A byte in the file is four in memory."""
    file = npz(tmp_path / "a.npz", x=np.zeros((12, 100), np.uint8), y=Y)
    assert read(file, Form("npz"), 5000).shape == [100]
    assert "unpacks to more than 4,000 bytes" in refused(file, Form("npz"), limit=4000)


def test_a_pickle_is_not_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path(tmp_path / "harmed").touch, ()

    file = tmp_path / "a.npz"
    np.savez(file, x=np.array([Harm()] * 12, dtype=object).reshape(12, 1), y=Y)
    assert "could run code" in refused(file, Form("npz"))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the file is empty"),
        ("\n", "the file is empty, or its first line is"),
        ("a,b,label\n", "the file has no rows"),
        (csv_of(header="a,b,class"), "label: no column 'label' with the classes; choose one of 'a', 'b', 'class'"),
        (csv_of().replace(",", ";"), "choose one of 'a;b;label'; are the values separated by commas?"),
        (csv_of(header="a,b\x00,label"), "the first line names a column 'b\\x00': is this a csv file?"),
        (csv_of(header="a,a,label"), "two columns are called 'a'"),
        (csv_of(header=",b,label"), "column 1 has no name; if it is an index that was written along, leave it out"),
        ("label\na\n", "no column other than 'label'"),
        (csv_of().replace("3,1.5,daisy", "3,1.5"), "row 5: Expected 3 columns, got 2"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,daisy,4"), "row 5: Expected 3 columns, got 4"),
        (csv_of().replace("3,1.5", "3,so"), "row 5, column 'b' is not a number: 'so'"),
        (csv_of().replace("3,1.5", ",1.5"), "row 5, column 'a' is empty"),
        (csv_of().replace("3,1.5", "nan,1.5"), "row 5, column 'a': nan is not a finite"),
        (csv_of().replace("3,1.5", "3,1e39"), "row 5, column 'b': 1e39 is not a finite 32-bit number"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,"), "row 5, column 'label': the label is empty"),
        ("text,a,label\n" + "so,1,x\n" * 12, "row 2, column 'text' is not a number: 'so' (for texts, have the columns"),
        ("text,label\n" + 'so,x\n" ",x\n' * 6, "row 3, column 'text': the text is empty"),
        ("a,label\n1,x\n1,\xff\n".encode("latin-1"), "not UTF-8: save the file in that encoding"),
        (b"\xff\xfea\0", "the first line is not UTF-8 with names of columns"),
        (b"PK\x03\x04", "the file is not csv: it is a zip archive or an npz file"),
        (b"\x80\x04\x95", "the file is not csv: it is a pickle, which could run code and is never read"),
        ("a" * 2**22, "the first line has 4,194,304 bytes or more"),
        ("a,label\n1," + '"' + "x,1\n" * 2**22, "a row has more than 8,388,608 bytes; is a quotation mark not closed?"),
        ("a,label\n" + "".join(f"1,c{row}\n" for row in range(10_001)), "row 10002, column 'label': more than 10,000"),
    ],
)
def test_csv(tmp_path, content, sentence):
    assert sentence in refused(written(tmp_path / "a.csv", content), Form("csv"))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"a": [1.0] * 12}, "no column 'label' with the classes; choose one of 'a'"),
        ({"a": [1.0] * 12, "label": [0.5] * 12}, "the label column 'label' is of type double"),
        ({"a": [1.0] * 12, "label": ["x"] * 11 + [None]}, "row 12, column 'label' is empty"),
        ({"a": [1.0] * 11 + [None], "label": ["x"] * 12}, "row 12, column 'a' is empty"),
        ({"a": [1.0] * 11 + [np.inf], "label": ["x"] * 12}, "row 12, column 'a': inf is not a finite"),
        ({"a": [[1.0]] * 12, "label": ["x"] * 12}, "column 'a' holds lists or records"),
        ({"a": ["so"] * 12, "label": ["x"] * 12}, "row 1, column 'a' is not a number: 'so'"),
        ({"text": [1] * 12, "label": ["x"] * 12}, "column 'text' is of type int64; it has to hold texts"),
        ({"a": [], "label": []}, "the file has no rows"),
        ({"a": [b"x"] * 12, "label": ["x"] * 12}, "column 'a' is of type binary; numbers, labels and texts are read"),
        ({"text": ["x" * 2**24 * 3] + ["y"] * 11, "label": ["x"] * 12}, "row 1 has more than 33,554,432 bytes"),
    ],
)
def test_parquet(tmp_path, columns, sentence):
    assert sentence in refused(parquet(tmp_path / "a.parquet", **columns), Form("parquet"))


@pytest.mark.parametrize(
    ("number", "line", "sentence"),
    [
        (3, "{", "line 3 is not JSON"),
        (1, "[1]", 'line 1 is not an object with "text" and "label"'),
        (12, '{"text": "x"}', 'line 12 is not an object with "text" and "label"'),
        (2, '{"text": 1, "label": 1}', 'line 2: "text" is not a text'),
        (2, '{"text": " ", "label": 1}', "line 2: the text is empty"),
        (2, '{"text": "\\ud800", "label": 1}', "line 2: the text has half of a surrogate pair"),
        (2, '{"text": "x", "label": 1.5}', 'line 2: "label" is neither an integer nor a text'),
        (2, '{"text": "x", "label": true}', 'line 2: "label" is neither an integer nor a text'),
        (2, '{"text": "x", "label": "\\ud800"}', "line 2: the label '\\ud800' has characters that cannot be shown"),
        (2, "[" * 100_000, "line 2 is not JSON"),
        (2, "1" * 5000, "line 2 is not JSON"),
        (2, '"' + "x" * 2**20, "line 2 is longer than 1,048,576 bytes"),
        (2, b"\xff".decode("latin-1"), "line 2 is not"),
    ],
)
def test_jsonl(tmp_path, number, line, sentence):
    lines = jsonl_of().splitlines()
    lines[number - 1] = line
    assert sentence in refused(written(tmp_path / "a.jsonl", "\n".join(lines).encode("latin-1")), Form("jsonl"))


def test_jsonl_of_one_class_and_of_nothing(tmp_path):
    one = (json.dumps({"text": "x", "label": "a"}) + "\n") * 12
    assert "all records are of class 'a'" in refused(written(tmp_path / "a.jsonl", one), Form("jsonl"))
    assert refused(written(tmp_path / "a.jsonl", "\n\n"), Form("jsonl")) == "the file is empty"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_texts_count_as_what_they_take(tmp_path, form):
    """An emoji makes four bytes of each letter, and no text takes less than some 80."""
    texts, labels = ["\U0001f600" + "x" * 10_000] * 12, ["a", "b", "c"] * 4
    file = tmp_path / "a"
    if form == "csv":
        written(file, "text,label\n" + "".join(map("{},{}\n".format, texts, labels)))
    elif form == "parquet":
        parquet(file, text=texts, label=labels)
    else:
        written(
            file, "".join(json.dumps({"text": one, "label": a}) + "\n" for one, a in zip(texts, labels, strict=True))
        )
    assert len(read(file, Form(form), 500_000).inputs) == 12
    assert "take more than 400,000 bytes of memory" in refused(file, Form(form), limit=400_000)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "npz"])
def test_more_records_than_are_read(tmp_path, monkeypatch, form):
    monkeypatch.setattr(records, "MOST_RECORDS", 11)
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "csv": lambda: written(tmp_path / "a.csv", csv_of()),
        "jsonl": lambda: written(tmp_path / "a.jsonl", jsonl_of()),
    }[form]()
    assert "there are more than 11 records" in refused(whole, Form(form))


def test_texts_in_delta_encoding(tmp_path):
    """Each may be a copy of the one before, so that a few bytes unpack to gigabytes, and Arrow does not count."""
    file = tmp_path / "a.parquet"
    table = pa.table({"text": ["x"] * 12, "label": Y})
    pa.parquet.write_table(table, file, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert "texts in delta encoding are not read" in refused(file, Form("parquet"))


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("text", "take more than 100,000,000 bytes"),
        ("label", "row 1, column 'label': the label has 200001 characters"),
        ("a", "row 1, column 'a' has more than 1,000 bytes: no number"),
    ],
)
def test_a_text_that_is_named_many_times(tmp_path, column, sentence):
    """A dictionary makes gigabytes of a small file; they are counted before they are there."""
    rows = 40 * 8192
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([" " * 200_000 + "1"]))
    numbers = pa.array(np.arange(rows) % 3)
    columns = {"text": long, "label": numbers} if column == "text" else {"a": numbers, "label": numbers, column: long}
    file = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table(columns), file, store_schema=False)
    assert file.stat().st_size < 10**6
    most = pa.default_memory_pool().max_memory()
    assert sentence in refused(file, Form("parquet"))
    assert pa.default_memory_pool().max_memory() - most < 2**28


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_that_take_more_room_than_is_allowed(tmp_path, form):
    if form == "csv":
        file = written(tmp_path / "a", csv_of())
    else:
        file = parquet(tmp_path / "a", a=[1.0] * 12, b=[2.0] * 12, label=["a", "b", "c"] * 4)
    assert "take more than 50 bytes" in refused(file, Form(form), limit=50)


@pytest.mark.parametrize("ignored", [{"image_size": 8}, {"label": "kind"}])
def test_what_a_format_has_no_use_for(ignored):
    (name,) = ignored
    takes = {"image_size": ("zip",), "label": ("csv", "parquet")}[name]
    for file_format in get_args(FileFormat):
        if file_format in takes:
            assert Form(file_format, **ignored)
            continue
        with pytest.raises(Invalid, match=f"and this is {file_format}") as caught:
            Form(file_format, **ignored)
        assert caught.value.errors[0].pointer == name


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,label\n\n\n1,x\nso,y\n", "row 5, column 'a' is not a number: 'so'"),
        ("a,label\n1,x\n\n1, \n", "row 4, column 'label': the label is empty"),
        ("a,label\n1,x\n\n1\n", "row 4: Expected 2 columns, got 1"),
        ('text,label\n\n"a\n\nb",x\n,y\n', "row 4, column 'text': the text is empty"),
    ],
)
def test_empty_lines_are_rows_too(tmp_path, content, sentence):
    assert sentence in refused(written(tmp_path / "a.csv", content), Form("csv"))


@pytest.mark.parametrize("form", ["npz", "parquet", "zip"])
def test_cut_off_anywhere(tmp_path, form):
    """Never an error of ours: at each length it is refused in words."""
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "zip": lambda: folders(tmp_path / "a.zip"),
    }[form]()
    raw = whole.read_bytes()
    read(whole, Form(form), LIMIT)
    for length in range(0, len(raw), max(1, len(raw) // 40)):
        refused(written(tmp_path / "cut", raw[:length]), Form(form))


@pytest.mark.parametrize("form", ["npz", "parquet", "zip", "csv", "jsonl"])
def test_bytes_that_were_changed(tmp_path, form):
    """Refused, or read as something else: nothing in between, and no warning."""
    whole = {
        "npz": lambda: npz(tmp_path / "a.npz", x=ROWS, y=Y),
        "parquet": lambda: parquet(tmp_path / "a.parquet", a=[1.0] * 12, label=["a", "b", "c"] * 4),
        "zip": lambda: folders(tmp_path / "a.zip"),
        "csv": lambda: written(tmp_path / "a.csv", csv_of()),
        "jsonl": lambda: written(tmp_path / "a.jsonl", jsonl_of()),
    }[form]()
    raw = whole.read_bytes()
    draw = np.random.default_rng(0)
    taken, told = 0, set()
    for _ in range(150):
        changed = bytearray(raw)
        for place in draw.integers(0, len(raw), 2):
            changed[place] = draw.integers(0, 256)
        try:
            rows_for_test(read(written(tmp_path / "changed", bytes(changed)), Form(form), LIMIT))
            taken += 1
        except Invalid as error:
            told.add(error.detail)
    assert taken < 150
    assert all(told)
