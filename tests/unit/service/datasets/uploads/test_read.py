"""Valid uploads of each format: what is read, how it is split, and warnings."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import rows_for_test
from tests.unit.service.datasets.uploads.files import (
    CLASSES,
    csv_of,
    folders,
    image,
    jsonl_of,
    npz,
    parquet,
    with_member,
    write_file,
)

LIMIT = 2**30
LABELS = np.arange(12) % 3
DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (12, 5, 4), np.uint8)


def names(records) -> list[str]:
    return [records.classes[label] for label in records.labels]


class TestNpz:
    @pytest.mark.parametrize(
        ("x", "expected"),
        [
            (PIXELS, PIXELS[..., None]),
            (PIXELS[..., None], PIXELS[..., None]),
            (PIXELS[:, None], PIXELS[..., None]),
            (np.repeat(PIXELS[..., None], 3, 3), np.repeat(PIXELS[..., None], 3, 3)),
            (np.repeat(PIXELS[:, None], 3, 1), np.repeat(PIXELS[..., None], 3, 3)),
            (PIXELS.astype(np.int64), PIXELS[..., None]),
            (PIXELS.astype(np.float64), PIXELS[..., None]),
            (PIXELS.astype(np.float32) / 255, PIXELS[..., None]),
            (np.asfortranarray(PIXELS), PIXELS[..., None]),
            (PIXELS > 127, ((PIXELS > 127) * 255)[..., None]),
        ],
    )
    def test_reads_images(self, tmp_path, x, expected):
        records = read(npz(tmp_path / "a.npz", x=x, y=LABELS), Form("npz"), LIMIT)
        assert records.kind == "image"
        assert records.inputs.dtype == np.uint8
        np.testing.assert_array_equal(records.inputs, expected)
        assert records.classes == ["0", "1", "2"]
        assert records.shape == [expected.shape[3], 5, 4]

    def test_reads_rows(self, tmp_path):
        x = DRAW.normal(size=(12, 7))
        records = read(npz(tmp_path / "a.npz", x=x, y=np.array(CLASSES)[LABELS]), Form("npz"), LIMIT)
        assert (records.kind, records.inputs.dtype, records.shape) == ("table", np.float64, [7])
        np.testing.assert_array_equal(records.inputs, x)
        assert names(records) == [CLASSES[label] for label in LABELS]

    def test_keeps_given_test_set(self, tmp_path):
        file = npz(tmp_path / "a.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:3], y_test=LABELS[:3])
        records = read(file, Form("npz"), LIMIT)
        assert rows_for_test(records).tolist() == [False] * 12 + [True] * 3

    def test_joins_signed_and_unsigned_labels(self, tmp_path):
        """Numpy would convert them to floats."""
        labels = {"y_train": LABELS.astype(np.uint64), "y_test": LABELS[:3].astype(np.int64)}
        records = read(npz(tmp_path / "a.npz", x_train=PIXELS, x_test=PIXELS[:3], **labels), Form("npz"), LIMIT)
        assert records.classes == ["0", "1", "2"]
        assert records.labels.tolist() == [*LABELS, *LABELS[:3]]

    def test_sorts_numeric_labels_as_numbers(self, tmp_path):
        records = read(npz(tmp_path / "a.npz", x=PIXELS, y=np.array([10, 9, -1])[LABELS]), Form("npz"), LIMIT)
        assert records.classes == ["-1", "9", "10"]
        assert names(records)[:3] == ["10", "9", "-1"]


class TestCsv:
    @pytest.mark.parametrize(
        "content",
        [
            csv_of().encode(),
            b"\xef\xbb\xbf" + csv_of().encode(),
            csv_of().replace("\n", "\r\n").encode(),
            csv_of().rstrip("\n").encode(),
            csv_of().replace("1,0.5", '"1", 0.5 ').encode(),
            csv_of().replace("3,1.5", "\n3,1.5").encode(),
        ],
    )
    def test_reads_table(self, tmp_path, content):
        records = read(write_file(tmp_path / "a.csv", content), Form("csv"), LIMIT)
        assert (records.kind, records.columns, records.shape) == ("table", ["a", "b"], [2])
        np.testing.assert_array_equal(records.inputs, [[row, row / 2] for row in range(12)])
        assert names(records) == [CLASSES[row % 3] for row in range(12)]

    def test_reads_label_from_given_column(self, tmp_path):
        file = write_file(tmp_path / "a.csv", csv_of(header="a,b,species"))
        assert read(file, Form("csv", "species"), LIMIT).classes == list(CLASSES)

    def test_reads_texts(self, tmp_path):
        lines = [f'"so, ""good""\nit is {row}",{CLASSES[row % 3]}' for row in range(12)]
        records = read(write_file(tmp_path / "a.csv", "text,label\n" + "\n".join(lines)), Form("csv"), LIMIT)
        assert (records.kind, records.shape) == ("text", [])
        assert records.inputs[1] == 'so, "good"\nit is 1'

    def test_reads_more_rows_than_one_block(self, tmp_path):
        long = "a,label\n" + "".join(f"{row:01000d},{row % 2}\n" for row in range(20_000))
        records = read(write_file(tmp_path / "a.csv", long), Form("csv"), LIMIT)
        assert records.inputs[:, 0].tolist() == list(range(20_000))
        assert (records.labels == np.arange(20_000) % 2).all()


class TestParquet:
    def test_reads_table(self, tmp_path):
        columns = {"a": list(range(12)), "b": [row / 2 for row in range(12)], "c": [True, False] * 6}
        file = parquet(tmp_path / "a.parquet", **columns, label=LABELS.tolist())
        records = read(file, Form("parquet"), LIMIT)
        assert (records.columns, records.classes) == (["a", "b", "c"], ["0", "1", "2"])
        np.testing.assert_array_equal(records.inputs, np.stack([*columns.values()], 1))

    def test_reads_more_columns_than_one_block_has_rows(self, tmp_path):
        columns = {f"c{number}": [float(number)] * 12 for number in range(600)}
        file = parquet(tmp_path / "a.parquet", **columns, label=LABELS.tolist())
        np.testing.assert_array_equal(read(file, Form("parquet"), LIMIT).inputs, [np.arange(600)] * 12)

    def test_reads_repeated_texts_in_halves(self, tmp_path):
        texts = [f"{row} " + "x" * 10**6 for row in range(60)]
        repeated = pa.DictionaryArray.from_arrays(pa.array(np.arange(180) % 60), pa.array(texts))
        file = parquet(tmp_path / "a.parquet", text=repeated, label=np.arange(180) % 3)
        assert read(file, Form("parquet"), LIMIT).inputs == texts * 3

    def test_reads_texts_with_plain_and_dictionary_labels(self, tmp_path):
        labels = np.array(CLASSES)[LABELS].tolist()
        texts = [f"text {row}" for row in range(12)]
        for column in (labels, pa.array(labels).dictionary_encode()):
            records = read(parquet(tmp_path / "a.parquet", text=texts, label=column), Form("parquet"), LIMIT)
            assert (records.inputs, names(records)) == (texts, labels)


class TestJsonl:
    @pytest.mark.parametrize(
        "content",
        [
            jsonl_of().encode(),
            b"\xef\xbb\xbf" + jsonl_of().encode(),
            jsonl_of().replace("\n", "\r\n").encode(),
            jsonl_of().replace("\n", "\n\n").rstrip().encode(),
        ],
    )
    def test_reads_texts(self, tmp_path, content):
        records = read(write_file(tmp_path / "a.jsonl", content), Form("jsonl"), LIMIT)
        assert records.inputs == [f"text {row}" for row in range(12)]
        assert names(records) == [CLASSES[row % 3] for row in range(12)]


class TestFolders:
    @pytest.mark.parametrize("top", ["", "flowers/", "./"])
    def test_reads_images(self, tmp_path, top):
        records = read(folders(tmp_path / "a.zip", top=top), Form("zip"), LIMIT)
        assert (records.classes, records.shape) == (list(CLASSES), [3, 6, 8])
        assert records.inputs[0, 0, 0].tolist() == [0, 255, 7]
        assert records.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4

    @pytest.mark.parametrize(
        ("mode", "file_format", "channels"),
        [
            ("L", "PNG", 1),
            ("1", "BMP", 1),
            ("P", "GIF", 3),
            ("RGBA", "PNG", 3),
            ("RGB", "JPEG", 3),
            ("CMYK", "JPEG", 3),
        ],
    )
    def test_converts_image_modes(self, tmp_path, mode, file_format, channels):
        file = folders(tmp_path / "a.zip", mode=mode, file_format=file_format)
        assert read(file, Form("zip"), LIMIT).shape[0] == channels

    def test_ignores_files_of_operating_systems(self, tmp_path):
        file = folders(tmp_path / "a.zip")
        for name in ("__MACOSX/daisy/._0.png", ".DS_Store", "rose/Thumbs.db", "rose/.hidden/a.png"):
            with_member(file, name, b"x")
        assert len(read(file, Form("zip"), LIMIT).labels) == 12

    def test_crops_images_to_central_square(self, tmp_path):
        file = folders(tmp_path / "a.zip", size=(300, 200))
        striped = Image.new("L", (30, 10), 0)
        striped.paste(200, (10, 0, 20, 10))
        content = io.BytesIO()
        striped.save(content, "PNG")
        with_member(file, "daisy/striped.png", content.getvalue())
        records = read(file, Form("zip", image_size=4), LIMIT)
        assert records.shape == [3, 4, 4]
        assert (records.inputs[4] > 150).all()  # the stripe has a third of the width, as has the square


class TestSplit:
    def records(self, tmp_path, labels):
        return read(npz(tmp_path / "a.npz", x=np.zeros((len(labels), 1)), y=np.array(labels)), Form("npz"), LIMIT)

    def test_test_set_is_a_fifth_of_each_class_and_reproducible(self, tmp_path):
        records = self.records(tmp_path, [0] * 50 + [1] * 11 + [2] * 3)
        is_test = rows_for_test(records)
        assert np.bincount(records.labels[is_test]).tolist() == [10, 2, 1]
        assert (is_test == rows_for_test(records)).all()

    def test_hash_depends_on_labels_and_split(self, tmp_path):
        records = self.records(tmp_path, [0] * 6 + [1] * 6)
        other = self.records(tmp_path, [0] * 6 + [2] * 6)
        is_test = rows_for_test(records)
        assert len({records.sha256(is_test), records.sha256(~is_test), other.sha256(is_test)}) == 3


def test_rejects_gzip_and_single_image(tmp_path):
    file = write_file(tmp_path / "a.csv.gz", gzip.compress(csv_of().encode()))
    with pytest.raises(Exception, match="compressed with gzip; unpack it first"):
        read(file, Form("csv"), LIMIT)
    assert image()  # an image that is not in an archive
    with pytest.raises(Exception, match="pack class folders into a zip archive"):
        read(write_file(file, image()), Form("zip"), LIMIT)
