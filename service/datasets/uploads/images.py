"""Zip archives of images in class folders, `CLASS/FILE.png`, optionally below one common folder."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.datasets.uploads.npz import MAX_SIDE
from service.datasets.uploads.records import ClassNames, Records, unfit
from service.datasets.uploads.zip_archive import Archive
from service.errors import Invalid

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF")
MAX_PIXELS = 40_000_000
"""Maximum size of an image before it is resized; 120 MB decoded."""
MAX_FILE_BYTES = 2**27
GREY = frozenset({"1", "L", "LA"})
EIGHT_BIT = GREY | {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
THUMBNAIL_SIDE = 64


def read_folders(path: Path, image_size: int | None, max_bytes: int) -> Records:
    """The images of all class folders, of one size or cut to squares of `image_size` pixels. Raises Invalid."""
    with Archive(path, max_bytes, "zip archive") as archive:
        members = _by_class(archive.members)
        names, labels = ClassNames(), np.empty(len(members), np.int64)
        images: NDArray[np.uint8] | None = None
        are_grey = True
        for row, (label, member) in enumerate(members):
            labels[row] = names.number(label, partial(_folder_of, member))
            image = _decoded(archive, member, image_size)
            if images is None:
                images = _room(len(members), image, max_bytes)
                first = member.filename
            are_grey = are_grey and image.mode in GREY
            if (image.height, image.width) != images.shape[1:3]:  # before `convert`, which fails for truncated files
                raise Invalid.field(
                    "image_size",
                    f"'{member.filename}' has {image.width} x {image.height} pixels but '{first}' has "
                    f"{images.shape[2]} x {images.shape[1]}; set image_size, such as 64, to crop and resize all images",
                )
            images[row] = np.asarray(image.convert("RGB"))
        assert images is not None
    classes, numbers = names.in_order(labels)
    return Records("image", np.ascontiguousarray(images[..., :1]) if are_grey else images, numbers, classes)


def _folder_of(member: ZipInfo) -> str:
    return f"folder of '{member.filename}'"


def _room(count: int, image: Image.Image, max_bytes: int) -> NDArray[np.uint8]:
    """An empty array for `count` images of the size of `image`."""
    if max(image.size) > MAX_SIDE:
        raise Invalid.field(
            "image_size",
            f"the images have {image.width} x {image.height} pixels; at most {MAX_SIDE} per side are allowed; set "
            "image_size, such as 64, to crop and resize all images",
        )
    shape = (count, image.height, image.width, 3)
    if count * image.height * image.width * 3 > max_bytes:
        raise unfit(
            f"{count:,} images of {image.width} x {image.height} pixels exceed the limit of {max_bytes:,} bytes "
            "(KOTRAIN_MAX_DATASET_BYTES); set a smaller image_size"
        )
    return np.empty(shape, np.uint8)


def _by_class(members: Sequence[ZipInfo]) -> list[tuple[str, ZipInfo]]:
    """Class and member, ordered by name and not by position in the archive."""
    if not members:
        raise unfit("the archive contains no files")
    paths = [tuple(part for part in member.filename.split("/") if part != ".") for member in members]
    top = 1 if all(len(path) >= 3 and path[0] == paths[0][0] for path in paths) else 0
    for path, member in zip(paths, members, strict=True):
        if len(path) != top + 2:
            raise unfit(f"'{member.filename}' is not in a class folder; name the files CLASS/FILE.png")
        if Path(path[-1]).suffix.lower() not in ENDINGS:
            raise unfit(f"'{member.filename}' is not an image; supported are {', '.join(sorted(ENDINGS))}")
    pairs = [(path[top], member) for path, member in zip(paths, members, strict=True)]
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].filename))


def _decoded(archive: Archive, member: ZipInfo, image_size: int | None) -> Image.Image:
    """The first frame of an image file, cropped and resized if `image_size` is given."""
    if member.file_size > MAX_FILE_BYTES:
        raise unfit(f"'{member.filename}' has {member.file_size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed")
    content = archive.read(member)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, and Pillow's limit of pixels, which is above ours
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise unfit(
                    f"'{member.filename}' has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are allowed"
                )
            if image_size is None and max(image.size) > MAX_SIDE:
                return image  # its size is enough to refuse it
            image.load()
    except Invalid:
        raise
    except UnidentifiedImageError as error:  # Pillow's message names the buffer, not the file
        raise unfit(f"'{member.filename}' cannot be read as an image: it is not one of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise exceptions of many types
        why = str(error)[:100] or type(error).__name__
        raise unfit(f"'{member.filename}' cannot be read as an image: {why}") from error
    if image.mode not in EIGHT_BIT:
        raise unfit(f"'{member.filename}' has pixels of mode {image.mode}; save it with 8 bits per channel")
    return image if image_size is None else _cut(image, image_size)


def _cut(image: Image.Image, side: int) -> Image.Image:
    """The largest centered square of the image, resized to `side` x `side` pixels."""
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    plain = image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in GREY else "RGB")
    return plain.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + shorter, top + shorter))


def data_url(pixels: NDArray[Any]) -> str:
    """An image (H, W, C) as a PNG in a data URL, at most 64 pixels wide and high."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
