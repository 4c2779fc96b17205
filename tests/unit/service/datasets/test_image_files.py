"""Image files as they are read for uploads and class folders."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.datasets.image_files import UnreadableImage, load_image

CORNERS = np.array([[0, 60, 120], [180, 240, 90]], np.uint8)
"""A picture of 3 x 2 pixels without symmetry."""
LARGE = np.kron(CORNERS, np.ones((16, 16), np.uint8))
"""The same in blocks, as JPEG needs them."""
TURNED = {  # orientation -> the picture as stored, which the tag turns into CORNERS (EXIF 2.32, tag 0x0112)
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS),
    7: np.rot90(CORNERS.T, 2),
    8: np.rot90(CORNERS, -1),
}


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(shape: tuple[int, int], color_type: int, channels: int) -> io.BytesIO:
    """A PNG with 16 bits per channel, which Pillow does not write in color."""

    height, width = shape
    header = struct.pack(">2I5B", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + b"\x80\x07" * width * channels for _ in range(height))
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", TURNED)
def test_turns_image_as_exif_says(file_format: str, value: int) -> None:
    stored = Image.fromarray(np.kron(TURNED[value], np.ones((16, 16), np.uint8)))
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "JPEG" else {}
    loaded = load_image(encoded(stored, file_format, exif=orientation(value), **options))
    assert loaded.was_turned == (value != 1)
    difference = np.asarray(loaded.pixels.convert("L")).astype(int) - LARGE
    assert np.abs(difference).max() <= (0 if file_format in ("PNG", "TIFF") else 3)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_damaged_tags_do_not_refuse_the_image() -> None:
    """Cameras write tags of wrong types."""
    exif = orientation(6)
    exif[0x010F] = "maker"
    content = encoded(Image.fromarray(np.kron(TURNED[6], np.ones((16, 16), np.uint8))), "JPEG", exif=exif).getvalue()
    damaged = content.replace(b"\x0f\x01\x02\x00", b"\x0f\x01\x0a\x00", 1).replace(
        b"\x01\x0f\x00\x02", b"\x01\x0f\x00\x0a", 1
    )
    assert damaged != content
    assert load_image(io.BytesIO(damaged)).pixels.size in ((48, 32), (32, 48))


@pytest.mark.parametrize("bits", [2, 4])
def test_transparency_of_shallow_gray_images(bits: int) -> None:
    """Pillow scales their pixels to 8 bits, but not the transparent value."""

    pixels = 0b01_00 if bits == 2 else 0x10  # a pixel of value 1, then one of 0
    rows = b"\0" + bytes([pixels << 4 if bits == 2 else pixels])
    header = struct.pack(">2I5B", 2, 1, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"tRNS", b"\0\1") + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    loaded = load_image(io.BytesIO(b"\x89PNG\r\n\x1a\n" + body))
    assert loaded.was_transparent
    assert np.asarray(loaded.pixels).tolist() == [[255, 0]]


def transparent(mode: str) -> io.BytesIO:
    """A black image whose left half is transparent, in one of the ways that PNG and GIF have."""
    alpha = Image.new("L", (4, 2), 255)
    alpha.paste(0, (0, 0, 2, 2))
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (4, 2))
        image.putalpha(alpha)
        return encoded(image)
    half = Image.new("L", (4, 2), 0)
    half.paste(200, (0, 0, 2, 2))
    if mode == "1":
        return encoded(half.point(lambda value: value > 100, "1"), transparency=1)
    if mode == "L":
        return encoded(half, transparency=200)
    if mode == "RGB":
        return encoded(half.convert("RGB"), transparency=(200, 200, 200))
    palette = half.point(lambda value: value > 100).convert("P")
    palette.putpalette([0, 0, 0, 200, 200, 200])
    return encoded(palette, "GIF" if mode == "GIF" else "PNG", transparency=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "1", "L", "RGB", "P", "GIF"])
def test_draws_transparent_image_over_white(mode: str) -> None:
    loaded = load_image(transparent(mode))
    assert loaded.was_transparent
    assert loaded.pixels.mode == ("L" if mode in ("LA", "1", "L") else "RGB")
    np.testing.assert_array_equal(np.asarray(loaded.pixels.convert("L")), [[255, 255, 0, 0]] * 2)


def test_hidden_colors_of_transparent_pixels_are_not_read() -> None:
    image = Image.new("RGBA", (2, 2), (200, 10, 10, 0))
    assert np.unique(np.asarray(load_image(encoded(image)).pixels)).tolist() == [255]


def test_opaque_alpha_channel_changes_nothing() -> None:
    image = Image.fromarray(LARGE).convert("RGB")
    loaded = load_image(encoded(image.convert("RGBA")))
    assert not loaded.was_transparent
    np.testing.assert_array_equal(np.asarray(loaded.pixels), np.asarray(image))


@pytest.mark.parametrize(
    ("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["gray", "color", "gray alpha", "color alpha"]
)
def test_rejects_16_bits_per_channel(color_type: int, channels: int) -> None:
    with pytest.raises(UnreadableImage, match="16 bits per channel; save it with 8 bits"):
        load_image(png16((4, 4), color_type, channels))


def test_rejects_16_bits_of_ppm_and_tiff() -> None:
    with pytest.raises(UnreadableImage, match="16 bits per channel"):
        load_image(io.BytesIO(b"P6 2 1 65535\n" + b"\x80\x07" * 6))
    with pytest.raises(UnreadableImage, match=r"16 bits per channel|mode I;16"):
        load_image(encoded(Image.fromarray(np.full((4, 4), 0x8007, np.uint16)), "TIFF"))
    assert load_image(io.BytesIO(b"P6 2 1 255\n" + b"\x80" * 6)).pixels.size == (2, 1)


def test_reads_16_bit_bitmap() -> None:
    """5 or 6 bits per channel, which is less than 8."""
    header = struct.pack("<2sI2HI", b"BM", 54 + 4, 0, 0, 54)
    info = struct.pack("<I2i2H6I", 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    pixels = load_image(io.BytesIO(header + info + struct.pack("<2H", 0x7FFF, 0))).pixels
    assert np.asarray(pixels).reshape(-1, 3).tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_rejects_other_modes(mode: str) -> None:
    with pytest.raises(UnreadableImage, match="8 bits per channel"):
        load_image(encoded(Image.new(mode, (4, 4)), "TIFF"))


def test_errors_of_the_disk_are_not_errors_of_the_image() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        load_image(Broken(b"x"))
    assert not isinstance(caught.value, UnreadableImage)
