"""Uploaded data sets: add, list, show and remove them.

The database has no record of them: a data set is its folder `own/KIND/NAME` below the data folder, which a single
rename creates or removes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.config import settings
from service.datasets import layouts
from service.datasets.locks import hold_dataset
from service.datasets.schemas import DatasetDetail, DatasetView, Description, PreviewRecord
from service.datasets.uploads.checks import warnings_of
from service.datasets.uploads.images import data_url
from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import Records, rows_for_test
from service.datasets.uploads.upload import Arrival, arrivals, disk
from service.errors import Conflict, Forbidden, NotFound
from service.specs.base import Kind
from service.specs.catalog.datasets import DATASETS, OWN, Dataset, dataset_class
from service.specs.formats import FileFormat
from service.specs.states import ComparisonStatus, JobStatus
from service.specs.text import counted
from service.storage.tables import Comparison, Job, User

PREVIEW_RECORDS, PREVIEW_CHARACTERS, PREVIEW_NUMBERS = 16, 200, 32
"""Number of records in a preview; length of a text in characters; numbers of a row."""
FOLDER_OF = {choice.kind: folder for folder, choice in OWN.items()}
"""Kind -> first part of the name, such as `images`."""
_KINDS: dict[FileFormat, tuple[Kind, ...]] = {
    "npz": ("image", "table"),
    "csv": ("table", "text"),
    "parquet": ("table", "text"),
    "jsonl": ("text",),
    "zip": ("image",),
}
"""Kinds of records that each format can contain."""
_PREVIEW = TypeAdapter(list[PreviewRecord])


# --- adding ----------------------------------------------------------------------------------------------------------


def refuse_taken(name: str, file_format: FileFormat) -> None:
    """Raise Conflict if the name is taken for every kind that the format can contain; checked before the upload."""
    full_names = [f"{FOLDER_OF[kind]}/{name}" for kind in _KINDS[file_format]]
    if all(layouts.describe(full_name, settings().data) for full_name in full_names):
        raise _taken(full_names[0])


def add(arrival: Arrival, name: str, form: Form, owner: str) -> Description:
    """Add a received file as a data set. Call it for one file at a time, because of the memory it takes.

    Raises:
        Invalid: the contents are invalid.
        Conflict: a data set of this kind and name exists.
    """
    records = read(arrival.path, form, settings().max_dataset_bytes)
    is_test = rows_for_test(records)
    full_name = f"{FOLDER_OF[records.kind]}/{name}"
    description = Description(
        name=full_name,
        kind=records.kind,
        owner=owner,
        created_at=datetime.now(UTC),
        file_format=form.file_format,
        size_bytes=arrival.size_bytes,
        sha256=arrival.sha256,
        content_sha256=records.sha256(is_test),
        classes=records.classes,
        shape=records.shape,
        columns=records.columns,
        train_per_class=_per_class(records, ~is_test),
        test_per_class=_per_class(records, is_test),
        notes=records.notes,
        warnings=warnings_of(records, is_test),
    )
    with disk(arrival.folder):
        folder = arrival.folder / "set"
        folder.mkdir()
        _write_records(folder, records, is_test)
        (folder / "preview.json").write_bytes(_PREVIEW.dump_json(_preview(records, ~is_test)))
        (folder / "dataset.json").write_text(description.model_dump_json(indent=1))
        _publish(folder, layouts.own_folder(full_name, settings().data), full_name)
    return description


def _publish(folder: Path, destination: Path, name: str) -> None:
    """Flush the files to disk, then rename the folder. Raises Conflict if the destination exists."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(destination)
    except OSError as error:
        if not destination.exists():
            raise
        raise _taken(name) from error


def _taken(name: str) -> Conflict:
    return Conflict(f"data set '{name}' already exists; delete it first, or choose another name")


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


# --- showing ---------------------------------------------------------------------------------------------------------


def view_all() -> list[DatasetView]:
    """All data sets: the built-in ones first, then the uploaded ones by name."""
    folder = settings().data
    built_in = [_built_in(name, choice, folder) for name, choice in DATASETS.items()]
    uploaded = (layouts.describe(name, folder) for name in layouts.own_names(folder))
    return [*built_in, *(_uploaded(description) for description in uploaded if description is not None)]


def detail(name: str) -> DatasetDetail:
    """The properties of an uploaded data set and some of its records. Raises NotFound."""
    description = _described(name)
    preview = layouts.own_folder(name, settings().data) / "preview.json"
    return DatasetDetail(
        **_uploaded(description).model_dump(),
        file_format=description.file_format,
        sha256=description.sha256,
        class_names=description.classes,
        columns=description.columns,
        train_per_class=description.train_per_class,
        test_per_class=description.test_per_class,
        notes=description.notes,
        warnings=description.warnings,
        preview=_PREVIEW.validate_json(preview.read_bytes()) if preview.exists() else [],
    )


def _described(name: str) -> Description:
    description = layouts.describe(name, settings().data)
    if description is None:
        raise NotFound(layouts.absence(name, settings().data))
    return description


def _built_in(name: str, choice: type[Dataset], folder: Path) -> DatasetView:
    present = layouts.is_present(name, folder)
    return DatasetView(
        name=name,
        title=choice.title,
        kind=choice.kind,
        classes=choice.classes,
        records=choice.train_records,
        shape=None,
        present=present,
        fetch=None if present else layouts.fetch_command(name),
        own=False,
        owner=None,
        created_at=None,
        size_bytes=None,
    )


def _uploaded(description: Description) -> DatasetView:
    return DatasetView(
        name=description.name,
        title=description.title,
        kind=dataset_class(description.name).kind,
        classes=len(description.classes),
        records=description.train_records,
        shape=description.shape or None,
        present=True,
        fetch=None,
        own=True,
        owner=description.owner,
        created_at=description.created_at,
        size_bytes=description.size_bytes,
    )


# --- removing --------------------------------------------------------------------------------------------------------


def remove(session: Session, user: User, name: str) -> Path:
    """Move an uploaded data set to a temporary folder, which is returned and has to be passed to `sweep`.

    Deleting a million images takes minutes, during which submissions of jobs on the data set would wait for this
    transaction.

    Raises:
        NotFound: the data set does not exist.
        Forbidden: it belongs to another user.
        Conflict: an unfinished job or a running comparison uses it.
    """
    _described(name)  # before the lock, so that requests with unknown names take none
    hold_dataset(session, name, alone=True)
    description = _described(name)
    if description.owner != user.name and not user.is_admin:
        raise Forbidden(f"data set '{name}' belongs to {description.owner}")
    _refuse_used(session, name)
    data = settings().data
    with disk(data):
        removed = arrivals(data) / uuid4().hex
        layouts.own_folder(name, data).rename(removed)
    return removed


def sweep(removed: Path) -> None:
    """Delete the folder of a removed data set; if interrupted, the cleanup of crashed uploads deletes the rest."""
    shutil.rmtree(removed, ignore_errors=True)


def _refuse_used(session: Session, name: str) -> None:
    unfinished = (JobStatus.QUEUED, JobStatus.RUNNING)
    users = select(Job.id, func.count().over()).where(Job.dataset == name, Job.status.in_(unfinished))
    first = session.execute(users.order_by(Job.id).limit(1)).one_or_none()
    if first is not None:
        job_id, jobs = first
        raise Conflict(
            f"data set '{name}' is used by {counted(jobs, 'unfinished job')}, such as {job_id}; wait or cancel them"
        )
    comparison_id = session.scalar(
        select(Comparison.id).where(
            Comparison.status == ComparisonStatus.RUNNING,
            Comparison.plan.contains({"tasks": [{"spec": {"dataset": {"name": name}}}]}),
        )
    )
    if comparison_id is not None:
        raise Conflict(
            f"data set '{name}' is used by the running comparison {comparison_id}; wait for its end or cancel it"
        )
