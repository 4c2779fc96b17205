"""Choose the reader for the format of a file."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from service.datasets.uploads.columns import Columns
from service.datasets.uploads.images import read_folders
from service.datasets.uploads.jsonl import read_jsonl
from service.datasets.uploads.npz import read_npz
from service.datasets.uploads.records import Records, unfit
from service.datasets.uploads.tables import read_csv, read_parquet
from service.errors import Invalid
from service.specs.formats import FileFormat

LABEL = "label"
"""Default name of the label column."""
_MARKS: dict[FileFormat, tuple[bytes, ...]] = {
    "npz": (b"PK\x03\x04", b"PK\x05\x06"),
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),
    "parquet": (b"PAR1",),
}
"""First bytes of binary formats; the other formats are plain text."""
_OTHERS = {
    b"PK\x03\x04": "a zip archive, an npz file or an Excel file; save a sheet of Excel as CSV (UTF-8)",
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "compressed with gzip; unpack it first: gunzip FILE",
    b"BZh": "compressed with bzip2; unpack it first: bunzip2 FILE",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it first: unxz FILE",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it first: unzstd FILE",
    b"\x93NUMPY": "a single npy array; save it with its labels as npz: numpy.savez_compressed(FILE, x=..., y=...)",
    b"\x80": "a pickle, which can run code and is never read",
    b"\x89PNG": "a single image; pack class folders into a zip archive",
    b"\xff\xd8\xff": "a single image; pack class folders into a zip archive",
    b"7z\xbc\xaf": "a 7z archive; repack it as zip",
    b"Rar!": "a rar archive; repack it as zip",
    b"\x89HDF": "an HDF5 file; save its arrays as npz: numpy.savez_compressed(FILE, x=..., y=...)",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as CSV (UTF-8)",
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    **dict.fromkeys((b"UEsD", b"UEFSMQ", b"H4sI", b"k05VTVBZ"), "base64 text; decode it first: base64 -d FILE > NEW"),
    **dict.fromkeys(
        (b"<!DOCTYPE", b"<!doctype", b"<html"), "an HTML page, perhaps of a login; download the file again"
    ),
    b"sep=": "text with a line for Excel, 'sep='; remove the first line, and separate values by commas",
}
"""First bytes of other files, and what they are; the base64 ones are those of zip, parquet, gzip and npy."""
_FORM = re.compile(rb"--[^\r\n]{1,200}\r?\n(?:[^\r\n]+\r?\n)*?Content-Disposition: *form-data", re.IGNORECASE)
_START_BYTES = 2048


@dataclass(frozen=True)
class Form:
    """How to read a file: its format, the columns of a table, and the side length to which images are cropped."""

    file_format: FileFormat
    label: str = LABEL
    image_size: int | None = None
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    keep: tuple[str, ...] = ()
    """Columns that are read as numbers although they look like identifiers of rows."""

    def __post_init__(self) -> None:
        """Raise Invalid for options that this format would ignore."""
        if self.image_size is not None and self.file_format != "zip":
            raise Invalid.field("image_size", f"only zip archives take an image_size; the format is {self.file_format}")
        if self.label != LABEL and self.file_format not in ("csv", "parquet"):
            raise Invalid.field("label", f"only csv and parquet have a label column; the format is {self.file_format}")
        kind = self.file_format
        for option in ("drop", "keep"):
            if getattr(self, option) and kind not in ("csv", "parquet"):
                raise Invalid.field(option, f"only csv and parquet have named columns; the format is {kind}")


def read(path: Path, form: Form, max_bytes: int, max_pixels: int = sys.maxsize) -> Records:
    """Read the records of a file, unpacked at most `max_bytes`, of images at most `max_pixels` before they are resized.

    Raises Invalid with the position of the error.
    """
    _refuse_other_format(path, form.file_format)
    if form.file_format == "npz":
        return read_npz(path, max_bytes)
    if form.file_format == "csv":
        return read_csv(path, Columns(form.label, form.drop, form.keep), max_bytes)
    if form.file_format == "parquet":
        return read_parquet(path, Columns(form.label, form.drop, form.keep), max_bytes)
    if form.file_format == "jsonl":
        return read_jsonl(path, max_bytes)
    return read_folders(path, form.image_size, max_bytes, max_pixels)


def _refuse_other_format(path: Path, file_format: FileFormat) -> None:
    """Raise Invalid with the format that the first bytes show, if it is another one."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        raise unfit("the file is empty")
    if start.startswith(_MARKS.get(file_format, ())) and file_format in _MARKS:
        return
    if _FORM.match(start):
        raise unfit(
            f"the file is not {file_format}: it is a multipart form; send the file itself as the request's body, with "
            "`curl -X POST -T FILE` instead of `curl -F`"
        )
    other = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), None)
    if other is not None:
        raise unfit(f"the file is not {file_format}: it is {other}")
    if file_format in _MARKS:
        raise unfit(f"the file is not {file_format}: its first bytes do not match this format")
    if file_format == "jsonl" and start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
        raise unfit('the file is a JSON array; write one object per line: {"text": "...", "label": "..."}')
