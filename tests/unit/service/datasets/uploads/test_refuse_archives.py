"""Archives of images that are refused, and how: hostile ones, damaged ones, and what is in them by mistake."""

import io
import stat
import struct
import warnings
from zipfile import ZIP_BZIP2, ZipFile

import numpy as np
import pytest
from PIL import Image

from service.datasets.uploads import zip_archive
from service.datasets.uploads.formats import Form
from tests.unit.service.datasets.uploads.files import folders, image, npz, with_member, written
from tests.unit.service.datasets.uploads.refusing import refused

Y = np.arange(12) % 3
ROWS = np.zeros((12, 2))
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
        ("daisy/a.txt", {}, "'daisy/a.txt' is not an image; supported are .bmp, .gif, .jpeg, .jpg, .png"),
        ("a.png", {"content": image()}, "'a.png' does not lie in a class folder"),
        ("daisy/more/a.png", {"content": image()}, "'daisy/more/a.png' does not lie in a class folder"),
        (
            "daisy/a.png",
            {"content": b"no image"},
            "'daisy/a.png' cannot be read as an image: it is none of PNG",
        ),
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


def test_an_image_of_another_size_is_not_decoded(tmp_path):
    """It may be cut off, and its size is enough to refuse it."""
    draw = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(draw).save(content, "PNG")
    file = with_member(folders(tmp_path / "a.zip"), "tulip/z.png", content.getvalue()[:100_000])
    assert "'tulip/z.png' has 400 x 400 pixels and 'daisy/0.png' 8 x 6" in refused(file, Form("zip"))


def test_members_that_say_less_than_they_have(tmp_path):
    file = folders(tmp_path / "a.zip", size=(100, 100))
    raw = bytearray(file.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    assert "is damaged" in refused(written(file, bytes(raw)), Form("zip"))


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MOST_MEMBERS", 11)
    assert "the archive has 12 members; at most 11" in refused(folders(tmp_path / "a.zip"), Form("zip"))


def test_a_table_of_contents_that_would_fill_the_memory(tmp_path):
    file = folders(tmp_path / "a.zip")
    raw = bytearray(file.read_bytes())
    raw[-10:-6] = (2**28).to_bytes(4, "little")
    assert "table of contents has 268,435,456 bytes" in refused(written(file, bytes(raw)), Form("zip"))


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_large_table_of_contents_behind_a_small_one(tmp_path, is_hidden):
    """The locator leads to a record of our own making; Python's zipfile reads the one that lies before the locator."""
    raw = folders(tmp_path / "a.zip").read_bytes()
    end, before = len(raw) - 22, b"PK\3\4" + _end64(46, 0, 1)
    large = _end64(2**28, len(before), 12)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 if is_hidden else len(before) + end, 1)
    file = written(tmp_path / "b.zip", before + raw[:end] + large + locator + raw[end:])
    assert ("is not where it says" if is_hidden else "has 268,435,456 bytes") in refused(file, Form("zip"))


def _end64(size: int, start: int, members: int) -> bytes:
    return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, members, members, size, start)


def test_nothing_is_written_beside_the_file(tmp_path):
    file = with_member(folders(tmp_path / "a.zip"), "../evil.png", image())
    refused(file, Form("zip"))
    with warnings.catch_warnings(), ZipFile(file) as archive:
        assert "../evil.png" in archive.namelist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
