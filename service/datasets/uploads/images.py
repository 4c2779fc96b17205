"""Zip archives of images in class folders, `CLASS/FILE.png`, optionally below one common folder or in two parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.datasets.image_files import BACKGROUND, ENDINGS, LoadedImage, UnreadableImage, is_image_file, load_image
from service.datasets.uploads.npz import MAX_SIDE
from service.datasets.uploads.records import ClassNames, Records, unfit
from service.datasets.uploads.zip_archive import Archive
from service.errors import Invalid
from service.specs.text import agreeing, counted

MAX_FILE_BYTES = 2**27
THUMBNAIL_SIDE = 64
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Folder name, in lower case, -> the part of the data set that it holds."""


@dataclass(frozen=True)
class _File:
    """An image file of the archive. `part` is None if the archive is not divided into parts."""

    part: str | None
    label: str
    member: ZipInfo


class _Pixels:
    """Counts the pixels of all images before they are decoded. Raises Invalid above the limit."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    def take(self, pixels: int) -> None:
        """Count the pixels of an image."""
        self._left -= pixels
        if self._left < 0:
            raise unfit(
                f"the images have more than {self._most:,} pixels in all, which is the limit "
                "(KOTRAIN_MAX_UPLOAD_PIXELS); make them smaller before you pack them"
            )


def read_folders(path: Path, image_size: int | None, max_bytes: int, max_pixels: int) -> Records:
    """The images of all class folders, of one size or cropped to squares of `image_size` pixels. Raises Invalid."""
    pixels = _Pixels(max_pixels)
    with Archive(path, max_bytes, "zip archive") as archive:
        files = _files(archive.members)
        names, labels = ClassNames(), np.empty(len(files), np.int64)
        images: NDArray[np.uint8] | None = None
        are_gray = True
        rotated = transparent = 0
        for row, file in enumerate(files):
            labels[row] = names.number(file.label, partial(_folder_of, file.member))
            loaded = _loaded(archive, file.member, image_size, pixels)
            image = loaded.pixels if image_size is None else _cropped(loaded.pixels, image_size)
            if images is None:
                images = _room(len(files), image, max_bytes)
                first = file.member.filename
            if (image.height, image.width) != images.shape[1:3]:
                raise Invalid.field(
                    "image_size",
                    f"'{file.member.filename}' has {image.width} x {image.height} pixels but '{first}' has "
                    f"{images.shape[2]} x {images.shape[1]}; set image_size, such as 64, to crop and resize all images",
                )
            are_gray = are_gray and image.mode == "L"
            rotated += loaded.was_turned
            transparent += loaded.was_transparent
            images[row] = np.asarray(image.convert("RGB"))
        assert images is not None
    classes, numbers = names.in_order(labels)
    return Records(
        "image",
        np.ascontiguousarray(images[..., :1]) if are_gray else images,
        numbers,
        classes,
        is_test=_test_part(files),
        notes=[*_notes_of_images(rotated, transparent), *_notes_of_parts(files)],
        warnings=archive.warnings,
    )


# --- folders ---------------------------------------------------------------------------------------------------------


def _files(members: Sequence[ZipInfo]) -> list[_File]:
    """The images, ordered by name and not by position in the archive."""
    if not members:
        raise unfit("the archive contains no files")
    paths = [PurePosixPath(member.filename).parts for member in members]
    top = 1 if all(len(path) >= 3 and path[0] == paths[0][0] for path in paths) else 0
    is_divided = all(len(path) == top + 3 and path[top].casefold() in PARTS for path in paths)
    for path, member in zip(paths, members, strict=True):
        if len(path) != top + 2 + is_divided:
            raise unfit(
                f"'{member.filename}' is not in a class folder; name the files CLASS/FILE.png, or train/CLASS/FILE.png "
                "and test/CLASS/FILE.png"
            )
        if not is_image_file(path[-1]):
            raise unfit(f"'{member.filename}' is not an image; supported are {', '.join(sorted(ENDINGS))}")
    files = [
        _File(PARTS[path[top].casefold()] if is_divided else None, path[-2], member)
        for path, member in zip(paths, members, strict=True)
    ]
    _refuse_parts_as_classes(files)
    return sorted(files, key=lambda file: (file.label, file.member.filename))


def _refuse_parts_as_classes(files: Sequence[_File]) -> None:
    """Raise Invalid for folders `train` and `test` without class folders, and for parts without one to train on."""
    if any(file.part for file in files):
        if not any(file.part == "train" for file in files):
            raise unfit(
                "the archive has no folder 'train'; name the files train/CLASS/FILE.png and test/CLASS/FILE.png"
            )
        return
    parts = {PARTS[file.label.casefold()] for file in files if file.label.casefold() in PARTS}
    if len(parts) > 1:
        raise unfit(
            "the folders 'train' and 'test' (or 'val') contain images and no class folders; name the files "
            "train/CLASS/FILE.png and test/CLASS/FILE.png, or CLASS/FILE.png for a split that kotrain draws"
        )


def _test_part(files: Sequence[_File]) -> NDArray[np.bool_] | None:
    """Mask of the folder `test`, else of `val`; None if the archive has neither."""
    name = _test_folder(files)
    return None if name is None else np.array([file.part == name for file in files])


def _test_folder(files: Sequence[_File]) -> str | None:
    parts = {file.part for file in files}
    return next((part for part in ("test", "valid") if part in parts), None)


def _notes_of_parts(files: Sequence[_File]) -> list[str]:
    test = _test_folder(files)
    if test is None:
        return []
    if test == "valid":
        return ["The validation folder is the test part, because the archive has no test folder."]
    notes = ["The test folder is the test part."]
    if any(file.part == "valid" for file in files):
        notes.append(
            "The images of the validation folder are training records, of which each run splits off its own validation "
            "records."
        )
    return notes


def _folder_of(member: ZipInfo) -> str:
    return f"folder of '{member.filename}'"


# --- images ----------------------------------------------------------------------------------------------------------


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
        exceed = agreeing(count, "exceeds", "exceed")
        raise unfit(
            f"{counted(count, 'image')} of {image.width} x {image.height} pixels {exceed} the limit of {max_bytes:,} "
            "bytes (KOTRAIN_MAX_DATASET_BYTES); set a smaller image_size"
        )
    return np.empty(shape, np.uint8)


def _loaded(archive: Archive, member: ZipInfo, image_size: int | None, pixels: _Pixels) -> LoadedImage:
    """An image file, without its pixels if it is too large to be stored."""
    if member.file_size > MAX_FILE_BYTES:
        raise unfit(f"'{member.filename}' has {member.file_size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed")
    content = archive.read(member)
    try:
        return load_image(io.BytesIO(content), MAX_SIDE if image_size is None else None, pixels.take)
    except UnreadableImage as error:
        raise unfit(f"'{member.filename}' cannot be read as an image: {error}") from error


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """The largest centered square of the image, resized to `side` x `side` pixels."""
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + shorter, top + shorter))


def _notes_of_images(rotated: int, transparent: int) -> list[str]:
    notes = []
    if rotated:
        were = agreeing(rotated, "was", "were")
        notes.append(f"{counted(rotated, 'image')} {were} rotated as the EXIF orientation says.")
    if transparent:
        were = agreeing(transparent, "was", "were")
        notes.append(f"{counted(transparent, 'image')} with transparent pixels {were} drawn over {BACKGROUND}.")
    return notes


def data_url(pixels: NDArray[Any]) -> str:
    """An image (H, W, C) as a PNG in a data URL, at most 64 pixels wide and high."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
