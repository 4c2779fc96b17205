"""What is refused, and in which words: each names the place and what would be right."""

import json
import stat
import warnings
from pathlib import Path
from zipfile import ZIP_BZIP2, ZipFile

import numpy as np
import pytest

from service.errors import Invalid
from service.registry import archives
from service.registry.parsing import Form, read
from service.registry.records import rows_for_test
from tests.unit.service.registry.files import (
    csv_of,
    declaring,
    folders,
    image,
    jsonl_of,
    npz,
    parquet,
    with_member,
    written,
)

LIMIT = 10**8
Y = np.arange(12) % 3
X = np.zeros((12, 4, 4), np.uint8)
ROWS = np.zeros((12, 2))


def refused(path: Path, form: Form, limit: int = LIMIT) -> str:
    """The sentence that says what is wrong, with the name of the query's parameter where it is one's."""
    with pytest.raises(Invalid) as caught:
        rows_for_test(read(path, form, limit))
    (error,) = caught.value.errors
    return f"{error.pointer}: {error.detail}" if error.pointer else error.detail


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
    ],
)
def test_headers_of_arrays(tmp_path, shape, dtype, content, sentence):
    assert sentence in refused(declaring(tmp_path / "a.npz", shape, dtype, content), Form("npz"))


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
        (csv_of(header="a,b,class"), "label: there is no column 'label' with the classes; there are 'a', 'b', 'class'"),
        (csv_of().replace(",", ";"), "there are 'a;b;label'; are the values separated by commas?"),
        (csv_of(header="a,a,label"), "two columns are called 'a'"),
        (csv_of(header=",b,label"), "column 1 has no name; if it is an index that was written along, leave it out"),
        ("label\na\n", "there is no column beside 'label'"),
        (csv_of().replace("3,1.5,daisy", "3,1.5"), "Row #5: Expected 3 columns, got 2"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,daisy,4"), "Row #5: Expected 3 columns, got 4"),
        (csv_of().replace("3,1.5", "3,so"), "row 5, column 'b' is not a number: 'so'"),
        (csv_of().replace("3,1.5", ",1.5"), "row 5, column 'a' is empty"),
        (csv_of().replace("3,1.5", "nan,1.5"), "row 5, column 'a': nan is no finite number"),
        (csv_of().replace("3,1.5", "3,1e39"), "row 5, column 'b': 1e39 is no finite number that fits into 32 bits"),
        (csv_of().replace("3,1.5,daisy", "3,1.5,"), "row 5, column 'label': the label is empty"),
        ("text,a,label\n" + "so,1,x\n" * 12, "row 2, column 'text' is not a number: 'so' (for texts, have the columns"),
        ("text,label\n" + 'so,x\n" ",x\n' * 6, "row 3, column 'text': the text is empty"),
        ("a,label\n1,x\n1,\xff\n".encode("latin-1"), "invalid UTF8 data"),
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
        ({"a": [1.0] * 12}, "there is no column 'label' with the classes; there are 'a'"),
        ({"a": [1.0] * 12, "label": [0.5] * 12}, "the label column 'label' is of type double"),
        ({"a": [1.0] * 12, "label": ["x"] * 11 + [None]}, "row 12, column 'label' is empty"),
        ({"a": [1.0] * 11 + [None], "label": ["x"] * 12}, "row 12, column 'a' is empty"),
        ({"a": [1.0] * 11 + [np.inf], "label": ["x"] * 12}, "row 12, column 'a': inf is no finite number"),
        ({"a": [[1.0]] * 12, "label": ["x"] * 12}, "column 'a' holds lists or records"),
        ({"a": ["so"] * 12, "label": ["x"] * 12}, "row 1, column 'a' is not a number: 'so'"),
        ({"text": [1] * 12, "label": ["x"] * 12}, "column 'text' is of type int64; it has to hold texts"),
        ({"a": [], "label": []}, "the file has no rows"),
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


LINK, DEVICE = stat.S_IFLNK | 0o777, stat.S_IFBLK


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("../evil.png", {}, "'../evil.png' in the archive leads out of it"),
        ("daisy/../../evil.png", {}, "leads out of it"),
        ("/etc/evil.png", {}, "leads out of it"),
        ("..\\evil.png", {}, "leads out of it"),
        ("C:\\evil.png", {}, "leads out of it"),
        ("daisy/link.png", {"attributes": LINK, "content": b"/etc/passwd"}, "is a link or a device"),
        ("daisy/disk.png", {"attributes": DEVICE}, "is a link or a device"),
        ("daisy/bomb.png", {"content": b"\0" * 11_000_000}, "more than 200 times as much is refused"),
        ("daisy/a.png", {"content": image(), "compress_type": ZIP_BZIP2}, "packed by another method than deflate"),
        ("daisy/a.txt", {}, "'daisy/a.txt' is no image: .bmp, .gif, .jpeg, .jpg, .png are read"),
        ("a.png", {"content": image()}, "'a.png' does not lie in a class folder"),
        ("daisy/more/a.png", {"content": image()}, "'daisy/more/a.png' does not lie in a class folder"),
        ("daisy/a.png", {"content": b"no image"}, "'daisy/a.png' cannot be read as an image"),
        ("daisy/a.png", {"content": b""}, "'daisy/a.png' cannot be read as an image"),
        ("daisy/a.png", {"content": image()[:45]}, "'daisy/a.png' cannot be read as an image"),
        ("daisy/a.png", {"content": image(mode="I;16")}, "has pixels of another kind than 8 bits (I;16)"),
        (
            "daisy/a.png",
            {"content": image((9, 6))},
            "image_size: 'daisy/a.png' has 9 x 6 pixels and 'daisy/0.png' 8 x 6",
        ),
        ("daisy/a.png", {"content": image((7000, 7000))}, "has 7000 x 7000 pixels; at most 40,000,000 are read"),
    ],
)
def test_zip(tmp_path, name, options, sentence):
    assert sentence in refused(with_member(folders(tmp_path / "a.zip"), name, **options), Form("zip"))


def test_zip_of_images_that_are_too_large(tmp_path):
    told = refused(folders(tmp_path / "a.zip", size=(300, 200)), Form("zip"))
    assert told.startswith("image_size: the images have 300 x 200 pixels, and at most 256 a side are taken")


def test_zip_with_a_password(tmp_path):
    file = folders(tmp_path / "a.zip")
    raw = bytearray(file.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 8] |= 1
    assert "is encrypted" in refused(written(file, bytes(raw)), Form("zip"))


@pytest.mark.parametrize("form", ["zip", "npz"])
def test_unpacks_to_more_than_is_allowed(tmp_path, form):
    file = folders(tmp_path / "a.zip") if form == "zip" else npz(tmp_path / "a.npz", x=ROWS, y=Y)
    told = refused(file, Form(form), limit=200)
    assert "unpacks to more than 200 bytes, which is the limit (KOTRAIN_MAX_DATASET_BYTES)" in told


def test_images_that_take_more_room_than_is_allowed(tmp_path):
    file = folders(tmp_path / "a.zip", size=(200, 200))
    assert "take more than 400,000 bytes" in refused(file, Form("zip"), limit=400_000)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_that_take_more_room_than_is_allowed(tmp_path, form):
    if form == "csv":
        file = written(tmp_path / "a", csv_of())
    else:
        file = parquet(tmp_path / "a", a=[1.0] * 12, b=[2.0] * 12, label=["a", "b", "c"] * 4)
    assert "take more than 50 bytes" in refused(file, Form(form), limit=50)


def test_members_that_say_less_than_they_have(tmp_path):
    file = folders(tmp_path / "a.zip", size=(100, 100))
    raw = bytearray(file.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    assert "is damaged" in refused(written(file, bytes(raw)), Form("zip"))


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 11)
    assert "the archive has 12 members; at most 11" in refused(folders(tmp_path / "a.zip"), Form("zip"))


def test_a_table_of_contents_that_would_fill_the_memory(tmp_path):
    file = folders(tmp_path / "a.zip")
    raw = bytearray(file.read_bytes())
    raw[-10:-6] = (2**28).to_bytes(4, "little")
    assert "table of contents has 268,435,456 bytes" in refused(written(file, bytes(raw)), Form("zip"))


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


def test_nothing_is_written_beside_the_file(tmp_path):
    file = with_member(folders(tmp_path / "a.zip"), "../evil.png", image())
    refused(file, Form("zip"))
    with warnings.catch_warnings(), ZipFile(file) as archive:
        assert "../evil.png" in archive.namelist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
