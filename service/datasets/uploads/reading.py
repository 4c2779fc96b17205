"""Choose the reader for the format of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    b"PK\x03\x04": "a zip archive or an npz file",
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x93NUMPY": "a single npy array; save it with its labels as npz: numpy.savez_compressed(FILE, x=..., y=...)",
    b"\x80": "a pickle, which can run code and is never read",
    b"\x89PNG": "a single image; pack class folders into a zip archive",
    b"\xff\xd8\xff": "a single image; pack class folders into a zip archive",
    b"7z\xbc\xaf": "a 7z archive; repack it as zip",
}


@dataclass(frozen=True)
class Form:
    """How to read a file: its format, the label column of a table, and the side length to which images are cropped."""

    file_format: FileFormat
    label: str = LABEL
    image_size: int | None = None

    def __post_init__(self) -> None:
        """Raise Invalid for options that this format would ignore."""
        if self.image_size is not None and self.file_format != "zip":
            raise Invalid.field("image_size", f"only zip archives take an image_size; the format is {self.file_format}")
        if self.label != LABEL and self.file_format not in ("csv", "parquet"):
            raise Invalid.field("label", f"only csv and parquet have a label column; the format is {self.file_format}")


def read(path: Path, form: Form, max_bytes: int) -> Records:
    """Read the records of a file, unpacked at most `max_bytes`. Raises Invalid with the position of the error."""
    _refuse_other_format(path, form.file_format)
    if form.file_format == "npz":
        return read_npz(path, max_bytes)
    if form.file_format == "csv":
        return read_csv(path, form.label, max_bytes)
    if form.file_format == "parquet":
        return read_parquet(path, form.label, max_bytes)
    if form.file_format == "jsonl":
        return read_jsonl(path, max_bytes)
    return read_folders(path, form.image_size, max_bytes)


def _refuse_other_format(path: Path, file_format: FileFormat) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise unfit("the file is empty")
    if start.startswith(_MARKS.get(file_format, ())) and file_format in _MARKS:
        return
    other = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), None)
    if other is not None:
        raise unfit(f"the file is not {file_format}: it is {other}")
    if file_format in _MARKS:
        raise unfit(f"the file is not {file_format}: its first bytes do not match this format")
