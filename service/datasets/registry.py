"""Uploaded data sets: add, list, show and remove them.

The database has no record of them: a data set is its folder `own/KIND/NAME` below the data folder, which a single
rename creates or removes.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.config import settings
from service.datasets import layouts
from service.datasets.locks import hold_dataset
from service.datasets.schemas import DatasetDetail, DatasetView, Description
from service.datasets.uploads import reader
from service.datasets.uploads.build import FOLDER_OF, PREVIEW, SET, Limits, Upload
from service.datasets.uploads.reading import Form
from service.datasets.uploads.upload import Arrival, arrivals, disk
from service.errors import Conflict, Forbidden, NotFound
from service.specs.base import Kind
from service.specs.catalog.datasets import DATASETS, Dataset, dataset_class
from service.specs.formats import FileFormat
from service.specs.states import ComparisonStatus, JobStatus
from service.specs.text import counted
from service.storage.tables import Comparison, Job, User

_KINDS: dict[FileFormat, tuple[Kind, ...]] = {
    "npz": ("image", "table"),
    "csv": ("table", "text"),
    "parquet": ("table", "text"),
    "jsonl": ("text",),
    "zip": ("image",),
}
"""Kinds of records that each format can contain."""


# --- adding ----------------------------------------------------------------------------------------------------------


def refuse_taken(name: str, file_format: FileFormat) -> None:
    """Raise Conflict if the name is taken for every kind that the format can contain; checked before the upload."""
    full_names = [f"{FOLDER_OF[kind]}/{name}" for kind in _KINDS[file_format]]
    if all(layouts.describe(full_name, settings().data) for full_name in full_names):
        raise _taken(full_names[0])


def add(arrival: Arrival, name: str, form: Form, owner: str) -> Description:
    """Add a received file as a data set. Call it for one file at a time, because of the memory it takes.

    Raises:
        Invalid: the contents are invalid, or their reader failed.
        Conflict: a data set of this kind and name exists.
        StorageFull: the disk is almost full.
    """
    config = settings()
    description = reader.read_confined(
        Upload(arrival.folder, name, form, owner, arrival.size_bytes, arrival.sha256),
        Limits(config.max_dataset_bytes, config.max_upload_pixels, config.max_read_seconds, config.min_free_bytes),
    )
    # What the upload's reader says of it is not trusted, because the file may have taken it over.
    description = description.model_copy(
        update={
            "owner": owner,
            "created_at": datetime.now(UTC),
            "file_format": form.file_format,
            "size_bytes": arrival.size_bytes,
            "sha256": arrival.sha256,
        }
    )
    with disk(arrival.folder):
        file = arrival.folder / SET / "dataset.json"
        file.unlink(missing_ok=True)
        with file.open("x") as opened:
            opened.write(description.model_dump_json(indent=1))
        _publish(arrival.folder / SET, layouts.own_folder(description.name, config.data), description.name)
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
        preview=PREVIEW.validate_json(preview.read_bytes()) if preview.exists() else [],
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
