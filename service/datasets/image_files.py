"""The reader of image files, of uploads and of class folders: upright, opaque, 8 bits per channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from service.errors import KotrainError

ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 40_000_000
"""Maximum size of an image before it is resized; 120 MB decoded."""
BACKGROUND = "white"
"""Color behind transparent pixels."""
GRAY = frozenset({"1", "L", "LA", "La"})
EIGHT_BIT = GRAY | {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_DEEP = re.compile(r"[A-Za-z];(16|32)[BLN]?$")
"""Raw modes of more than 8 bits per channel, such as RGB;16B, of which Pillow keeps the upper 8. The expression also
matches BMP's BGR;16, which has 5 or 6 bits per channel and is allowed by its format."""
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what turns the stored image upright."""
Image.MAX_IMAGE_PIXELS = None  # `MAX_PIXELS` is lower, and Pillow warns


class UnreadableImage(ValueError):
    """The file is not an image that can be read; the message says why and does not name the file."""


@dataclass(frozen=True)
class LoadedImage:
    """Pixels of mode L or RGB, and what was done to them."""

    pixels: Image.Image
    was_turned: bool = False
    """Whether its orientation tag was applied."""
    was_transparent: bool = False
    """Whether it has been drawn over the background."""


def is_image_file(name: str) -> bool:
    """Whether the file name has the ending of a supported format."""
    return Path(name).suffix.lower() in ENDINGS


def load_image(file: IO[bytes], max_side: int | None = None, count: Callable[[int], None] | None = None) -> LoadedImage:
    """The first frame of an image file, turned as its EXIF orientation says and drawn over white if transparent.

    Color profiles are not applied. An image with a side of more than `max_side` pixels is returned without its pixels,
    since its size is enough to refuse it. `count` gets the number of pixels before they are decoded, and may raise.

    Raises:
        UnreadableImage: the file is damaged, too large, of another format, or has more than 8 bits per channel.
        OSError: the file cannot be read.
    """
    try:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are allowed")
        if max_side is not None and max(image.size) > max_side:
            return LoadedImage(image)
        _refuse_deep(image)
        if count is not None:
            count(image.width * image.height)
        depth = next((bits for bits in (2, 4) if f"L;{bits}" in _raw_modes(image)), 8)
        was_turned = _orientation(image) in _TURNS  # Pillow itself turns TIFF when it loads the pixels
        image.load()
        _refuse_mode(image)
        if depth < 8 and isinstance(image.info.get("transparency"), int):  # Pillow scales the pixels, not this value
            image.info["transparency"] *= 255 // (2**depth - 1)
        return _upright_and_opaque(image, was_turned)
    except (UnreadableImage, KotrainError):
        raise
    except UnidentifiedImageError as error:  # Pillow's message names the buffer, not the file
        raise UnreadableImage(f"it is not one of {', '.join(FORMATS)}") from error
    except MemoryError:
        raise
    except OSError as error:
        if error.errno is not None:  # of the disk; decoders raise OSErrors without a number
            raise
        raise UnreadableImage(str(error)[:100] or type(error).__name__) from error
    except Exception as error:  # decoders raise exceptions of many types
        raise UnreadableImage(str(error)[:100] or type(error).__name__) from error


def _refuse_deep(image: Image.Image) -> None:
    """Raise UnreadableImage for channels of more than 8 bits, which Pillow would cut to their upper 8."""
    is_deep_tiff = image.format == "TIFF" and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8  # type: ignore[attr-defined]
    is_deep_ppm = image.format == "PPM" and any(len(args) > 1 and int(str(args[1])) > 255 for args in _tile_args(image))
    has_deep_mode = image.format != "BMP" and any(map(_DEEP.search, _raw_modes(image)))
    if is_deep_tiff or is_deep_ppm or has_deep_mode:
        raise UnreadableImage("it has 16 bits per channel; save it with 8 bits per channel")


def _tile_args(image: Image.Image) -> list[tuple[object, ...]]:
    """The arguments of the decoder of each part of the file."""
    tiles = getattr(image, "tile", ())
    return [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in tiles]


def _raw_modes(image: Image.Image) -> list[str]:
    return [str(args[0]) for args in _tile_args(image) if args]


def _refuse_mode(image: Image.Image) -> None:
    if image.mode not in EIGHT_BIT:
        raise UnreadableImage(
            f"its pixels are of mode {image.mode}; save it in color or grayscale with 8 bits per channel"
        )


def _orientation(image: Image.Image) -> int:
    """The orientation tag; 1, upright, if there is none or if the tags cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # many types, also for other tags that are damaged
        return 1


def _upright_and_opaque(image: Image.Image, was_turned: bool) -> LoadedImage:
    turn = _TURNS.get(_orientation(image))
    if turn is not None:  # not ImageOps.exif_transpose, which writes all tags anew and fails for damaged ones
        was_turned = True
        image = image.transpose(turn)
    mode = "L" if image.mode in GRAY else "RGB"
    if not image.has_transparency_data:
        return LoadedImage(image.convert(mode), was_turned)
    layer = image.convert("RGBA")
    over = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), layer)
    return LoadedImage(over.convert(mode), was_turned, layer.getchannel("A").getextrema()[0] != 255)
