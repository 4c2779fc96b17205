"""Build the folder of a data set from an uploaded file: its records, a preview and its description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from service.datasets.schemas import Description, PreviewRecord
from service.datasets.uploads.checks import warnings_of
from service.datasets.uploads.images import data_url
from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import Records, rows_for_test
from service.datasets.uploads.upload import FILE, disk, refuse_full
from service.specs.catalog.datasets import OWN

SET = "set"
"""Name of the folder, in that of the upload."""
PREVIEW_RECORDS, PREVIEW_CHARACTERS, PREVIEW_NUMBERS = 16, 200, 32
"""Number of records in a preview; length of a text in characters; numbers of a row."""
FOLDER_OF = {choice.kind: folder for folder, choice in OWN.items()}
"""Kind -> first part of the name, such as `images`."""
PREVIEW = TypeAdapter(list[PreviewRecord])


@dataclass(frozen=True)
class Upload:
    """A received file, in its own folder, and what is to become of it."""

    folder: Path
    name: str
    form: Form
    owner: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Limits:
    """What reading one file may take: bytes unpacked, pixels decoded, seconds; and the bytes that stay free on disk."""

    max_bytes: int
    max_pixels: int
    seconds: float
    min_free_bytes: int


def build(upload: Upload, limits: Limits) -> Description:
    """Read the file and write the data set, without its description, to the folder `SET` beside it.

    Raises:
        Invalid: the contents are invalid.
        StorageFull, Unavailable: the disk is full or not writable.
    """
    records = read(upload.folder / FILE, upload.form, limits.max_bytes, limits.max_pixels)
    is_test = rows_for_test(records)
    description = Description(
        name=f"{FOLDER_OF[records.kind]}/{upload.name}",
        kind=records.kind,
        owner=upload.owner,
        created_at=datetime.now(UTC),
        file_format=upload.form.file_format,
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        content_sha256=records.sha256(is_test),
        classes=records.classes,
        shape=records.shape,
        columns=records.columns,
        train_per_class=_per_class(records, ~is_test),
        test_per_class=_per_class(records, is_test),
        notes=records.notes,
        warnings=warnings_of(records, is_test),
    )
    with disk(upload.folder):
        refuse_full(upload.folder, _size_bytes(records), limits.min_free_bytes)
        folder = upload.folder / SET
        folder.mkdir()
        _write_records(folder, records, is_test)
        (folder / "preview.json").write_bytes(PREVIEW.dump_json(_preview(records, ~is_test)))
    return description


def _size_bytes(records: Records) -> int:
    """Size of the inputs on disk, roughly for texts."""
    return sum(map(len, records.inputs)) if isinstance(records.inputs, list) else records.inputs.nbytes


def _per_class(records: Records, rows: NDArray[np.bool_]) -> list[int]:
    counts: list[int] = np.bincount(records.labels[rows], minlength=len(records.classes)).tolist()
    return counts


def _write_records(folder: Path, records: Records, is_test: NDArray[np.bool_]) -> None:
    parts = {"train": ~is_test, "test": is_test}
    if records.kind == "text":
        as_json = json.JSONEncoder(ensure_ascii=False).encode
        for part, rows in parts.items():
            with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as file:
                for text, label in zip(records.inputs_of(rows), records.labels[rows].tolist(), strict=True):
                    file.write(f'{{"text": {as_json(text)}, "label": {label}}}\n')
        return
    arrays: dict[str, Any] = {}
    for part, rows in parts.items():
        arrays |= {f"x_{part}": records.inputs_of(rows), f"y_{part}": records.labels[rows]}
    np.savez(folder / "data.npz", **arrays)


def _preview(records: Records, rows: NDArray[np.bool_]) -> list[PreviewRecord]:
    """Up to `PREVIEW_RECORDS` training records, from as many classes as possible."""
    return [_preview_record(records, row) for row in _preview_rows(records.labels, np.flatnonzero(rows))]


def _preview_rows(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[int]:
    """The first row of each class, then the second row of each, and so on."""
    order = np.argsort(labels[rows], kind="stable")
    starts = np.searchsorted(labels[rows][order], labels[rows][order])
    rank = np.arange(len(rows)) - starts  # within its class
    nth = np.lexsort((labels[rows][order], rank))[:PREVIEW_RECORDS]
    yield from rows[order][nth].tolist()


def _preview_record(records: Records, row: int) -> PreviewRecord:
    record: Any = records.inputs[row]
    return PreviewRecord(
        label=records.classes[records.labels[row]],
        image=data_url(record) if records.kind == "image" else None,
        text=record[:PREVIEW_CHARACTERS] if records.kind == "text" else None,
        values=record[:PREVIEW_NUMBERS].tolist() if records.kind == "table" else None,
    )
