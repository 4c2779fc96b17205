"""Archives of images that are rejected: hostile, damaged, or with unsuitable members."""

import io
import stat
import struct
import warnings
from zipfile import ZIP_BZIP2, ZipFile

import numpy as np
import pytest
from PIL import Image

from service.datasets.uploads import zip_archive
from service.datasets.uploads.reading import Form
from tests.unit.service.datasets.uploads.errors import error_of
from tests.unit.service.datasets.uploads.files import folders, image, npz, with_member, write_file

Y = np.arange(12) % 3
ROWS = np.zeros((12, 2))
LINK, DEVICE = stat.S_IFLNK | 0o777, stat.S_IFBLK


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("../evil.png", {}, "'../evil.png' in the archive points outside of it"),
        ("daisy/../../evil.png", {}, "points outside of it"),
        ("/etc/evil.png", {}, "points outside of it"),
        ("..\\evil.png", {}, "points outside of it"),
        ("C:\\evil.png", {}, "points outside of it"),
        ("daisy/link.png", {"attributes": LINK, "content": b"/etc/passwd"}, "is a link or a device"),
        ("daisy/disk.png", {"attributes": DEVICE}, "is a link or a device"),
        ("daisy/bomb.png", {"content": b"\0" * 11_000_000}, "at most 200 times the compressed size is allowed"),
        (
            "daisy/a.png",
            {"content": image(), "compress_type": ZIP_BZIP2},
            "has an unsupported compression method; use deflate",
        ),
        ("daisy/a.txt", {}, "'daisy/a.txt' is not an image; supported are .bmp, .gif, .jfif, .jpe, .jpeg, .jpg"),
        ("a.png", {"content": image()}, "'a.png' is not in a class folder"),
        ("daisy/more/a.png", {"content": image()}, "'daisy/more/a.png' is not in a class folder"),
        (
            "daisy/a.png",
            {"content": b"not an image"},
            "'daisy/a.png' cannot be read as an image: it is not one of PNG",
        ),
        ("daisy/a.png", {"content": b""}, "'daisy/a.png' cannot be read as an image"),
        ("daisy/a.png", {"content": image()[:45]}, "'daisy/a.png' cannot be read as an image"),
        (
            "daisy/a.png",
            {"content": image(mode="I;16")},
            "cannot be read as an image: it has 16 bits per channel; save it with 8 bits",
        ),
        (
            "daisy/a.png",
            {"content": image((9, 6))},
            "image_size: 'daisy/a.png' has 9 x 6 pixels but 'daisy/0.png' has 8 x 6",
        ),
    ],
)
def test_rejects_member(tmp_path, name, options, message):
    assert message in error_of(with_member(folders(tmp_path / "a.zip"), name, **options), Form("zip"))


def test_rejects_member_with_too_many_pixels(tmp_path):
    file = with_member(folders(tmp_path / "a.zip"), "daisy/a.png", image((7000, 7000)))
    assert "'daisy/a.png' cannot be read as an image: 7000 x 7000 pixels; at most 40,000,000 are allowed" in error_of(
        file, Form("zip")
    )


def test_rejects_too_large_images(tmp_path):
    message = error_of(folders(tmp_path / "a.zip", size=(300, 200)), Form("zip"))
    assert message.startswith("image_size: the images have 300 x 200 pixels; at most 256 per side are allowed")


def test_rejects_encrypted_archive(tmp_path):
    file = folders(tmp_path / "a.zip")
    raw = bytearray(file.read_bytes())
    offset = raw.index(b"PK\x01\x02")
    raw[offset + 8] |= 1
    assert "is encrypted" in error_of(write_file(file, bytes(raw)), Form("zip"))


@pytest.mark.parametrize("form", ["zip", "npz"])
def test_rejects_archive_that_unpacks_beyond_limit(tmp_path, form):
    file = folders(tmp_path / "a.zip") if form == "zip" else npz(tmp_path / "a.npz", x=ROWS, y=Y)
    message = error_of(file, Form(form), limit=200)
    assert "unpacks to more than the limit of 200 bytes (KOTRAIN_MAX_DATASET_BYTES)" in message


def test_rejects_images_beyond_limit(tmp_path):
    file = folders(tmp_path / "a.zip", size=(200, 200))
    assert "exceed the limit of 400,000 bytes" in error_of(file, Form("zip"), limit=400_000)


def test_rejects_image_of_different_size_without_decoding_it(tmp_path):
    """The image is truncated; its size suffices to reject it."""
    draw = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(draw).save(content, "PNG")
    file = with_member(folders(tmp_path / "a.zip"), "tulip/z.png", content.getvalue()[:100_000])
    assert "'tulip/z.png' has 400 x 400 pixels but 'daisy/0.png' has 8 x 6" in error_of(file, Form("zip"))


def test_rejects_member_larger_than_declared(tmp_path):
    file = folders(tmp_path / "a.zip", size=(100, 100))
    raw = bytearray(file.read_bytes())
    offset = raw.index(b"PK\x01\x02")
    raw[offset + 24 : offset + 28] = (10).to_bytes(4, "little")
    assert "is damaged" in error_of(write_file(file, bytes(raw)), Form("zip"))


def test_rejects_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", 11)
    assert "the archive has 12 members; at most 11" in error_of(folders(tmp_path / "a.zip"), Form("zip"))


def test_rejects_huge_central_directory(tmp_path):
    file = folders(tmp_path / "a.zip")
    raw = bytearray(file.read_bytes())
    raw[-10:-6] = (2**28).to_bytes(4, "little")
    assert "central directory has 268,435,456 bytes" in error_of(write_file(file, bytes(raw)), Form("zip"))


@pytest.mark.parametrize("is_hidden", [True, False])
def test_rejects_huge_central_directory_behind_a_small_one(tmp_path, is_hidden):
    """The locator points to a forged record; Python's zipfile reads the record just before the locator."""
    raw = folders(tmp_path / "a.zip").read_bytes()
    end, before = len(raw) - 22, b"PK\3\4" + _end64(46, 0, 1)
    large = _end64(2**28, len(before), 12)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 if is_hidden else len(before) + end, 1)
    file = write_file(tmp_path / "b.zip", before + raw[:end] + large + locator + raw[end:])
    assert ("is not at the recorded offset" if is_hidden else "has 268,435,456 bytes") in error_of(file, Form("zip"))


def _end64(size: int, start: int, members: int) -> bytes:
    return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, members, members, size, start)


def test_writes_no_files(tmp_path):
    file = with_member(folders(tmp_path / "a.zip"), "../evil.png", image())
    error_of(file, Form("zip"))
    with warnings.catch_warnings(), ZipFile(file) as archive:
        assert "../evil.png" in archive.namelist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
