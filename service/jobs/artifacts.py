"""The files of a job: its checkpoints, its curves as CSV, its JSON documents, and the uploaded code that it uses."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from service.code import versions
from service.errors import Conflict, NotFound, Unavailable
from service.jobs import lookup
from service.metrics import read
from service.specs.bodies import Output
from service.storage.files import store
from service.storage.tables import Checkpoint, CodeVersion, Job, MetricChunk

CURVES = "curves.csv"
BINARY, CSV, JSON = "application/octet-stream", "text/csv; charset=utf-8; header=present", "application/json"
PYTHON = "text/x-python; charset=utf-8"
BLOCK_BYTES = 1 << 20
ROWS = 5_000
"""Rows of a CSV file that are sent at a time."""
CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})\.pt")
ArtifactKind = Literal["checkpoint", "curves", "document", "code"]


class ArtifactView(Output):
    """A file of a job."""

    name: str
    kind: ArtifactKind
    media_type: str
    size_bytes: int | None = Field(description="Null for files that are generated while being sent.")
    sha256: str | None = Field(description="Checkpoints and uploaded code only.")
    step: int | None = Field(description="Optimizer steps before the checkpoint; null for other files.")
    version: str | None = Field(
        description="Version of uploaded code, such as ada/mine@3f2a9c71; null for other files."
    )
    created_at: datetime | None = Field(description="Checkpoints and uploaded code only.")


class Artifacts(Output):
    """The files of a job."""

    artifacts: list[ArtifactView]


@dataclass(frozen=True)
class Download:
    """A file to send, or the requested range of it."""

    file_name: str
    media_type: str
    blocks: Iterator[bytes]
    size_bytes: int | None = None
    """Total size of the blocks."""
    sha256: str | None = None
    """SHA-256 of the whole file."""
    part: str | None = None
    """`Content-Range`; None for the whole file."""


def artifacts(session: Session, job_id: UUID) -> Artifacts:
    """All files of a job. Raises NotFound."""
    job = lookup.get(session, job_id)
    query = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)
    files = [
        _view(f"checkpoint-{row.step}.pt", "checkpoint", BINARY, row.size_bytes, row) for row in session.scalars(query)
    ]
    if _has_points(session, job_id):
        files.append(_view(CURVES, "curves", CSV))
    files += [_view(name, "document", JSON, len(text)) for name, text in _documents(job).items()]
    files += [_view(name, "code", PYTHON, len(versions.content(row)), row) for name, row in _code(session, job).items()]
    return Artifacts(artifacts=files)


def _view(
    name: str,
    kind: ArtifactKind,
    media_type: str,
    size_bytes: int | None = None,
    row: Checkpoint | CodeVersion | None = None,
) -> ArtifactView:
    return ArtifactView(
        name=name,
        kind=kind,
        media_type=media_type,
        size_bytes=size_bytes,
        sha256=row.sha256 if row else None,
        step=row.step if isinstance(row, Checkpoint) else None,
        version=row.version if isinstance(row, CodeVersion) else None,
        created_at=row.created_at if row else None,
    )


def _documents(job: Job) -> dict[str, bytes]:
    """The existing documents, by name."""
    documents = {"spec.json": job.spec, "summary.json": job.summary, "environment.json": job.environment}
    return {
        name: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        for name, document in documents.items()
        if document is not None
    }


def _code(session: Session, job: Job) -> dict[str, CodeVersion]:
    """The uploaded versions that the job uses, by the name of their file, such as `optimizer.py`.

    They never change, and none that a job uses is deleted, so no copy is stored with the job.
    """
    return {f"{row.kind}.py": row for row in versions.used_by(session, job.spec["optimizer"])}


def download(session: Session, job_id: UUID, name: str, range_header: str | None = None) -> Download:
    """A file of a job. `range_header` is the request's `Range`, which only checkpoints support.

    Raises:
        NotFound: the job does not exist, or has no such file.
        Unavailable: the file of a checkpoint cannot be read.
        Conflict: the file of a checkpoint is damaged.
    """
    job = lookup.get(session, job_id)
    file_name = f"job-{str(job_id)[-8:]}-{name}"
    step = CHECKPOINT.fullmatch(name)
    row = session.get(Checkpoint, (job_id, int(step[1]))) if step else None
    if row is not None:
        return _checkpoint(row, file_name, range_header)
    documents = _documents(job)
    if name in documents:
        return Download(file_name, JSON, iter([documents[name]]), len(documents[name]))
    if (version := _code(session, job).get(name)) is not None:
        code = versions.content(version)
        return Download(file_name, PYTHON, iter([code]), len(code), version.sha256)
    if name == CURVES and _has_points(session, job_id):
        return Download(file_name, CSV, _table(job_id))
    names = ", ".join(file.name for file in artifacts(session, job_id).artifacts)
    raise NotFound(f"job {job_id} has no file '{name[:64]}'; choose one of {names}")


# --- checkpoints -----------------------------------------------------------------------------------------------------


def _checkpoint(row: Checkpoint, file_name: str, range_header: str | None) -> Download:
    checkpoint = f"the checkpoint of job {row.job_id} after step {row.step}"
    try:
        with store().open(row.file) as file:
            size = file.seek(0, io.SEEK_END)
    except OSError as error:
        reason = "its file is missing" if isinstance(error, FileNotFoundError) else error.strerror or "unknown"
        raise Unavailable(f"{checkpoint} cannot be read now: {reason}") from None
    if size != row.size_bytes:
        raise Conflict(f"{checkpoint} is damaged: its file has {size} bytes, expected {row.size_bytes}")
    first, last = _range(range_header, size) or (0, size - 1)
    count = last - first + 1
    part = f"bytes {first}-{last}/{size}" if count < size else None
    return Download(file_name, BINARY, _blocks(row.file, first, count), count, row.sha256, part)


def _range(range_header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of `bytes=5-9`, `bytes=5-` or `bytes=-5`; None, the whole file, for any other value.

    A server may ignore `Range` (RFC 9110, 14.2).
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", range_header or "")
    if match is None or not size or not (match[1] or match[2]):
        return None
    if not match[1]:
        return (max(0, size - int(match[2])), size - 1) if int(match[2]) else None
    first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    return (first, last) if first <= last else None


def _blocks(name: str, first: int, count: int) -> Iterator[bytes]:
    """The file is opened with the first block, so that a client that disconnects earlier leaves no open file."""
    with store().open(name) as file:
        file.seek(first)
        while count and (block := file.read(min(count, BLOCK_BYTES))):
            yield block
            count -= len(block)


# --- curves ----------------------------------------------------------------------------------------------------------


def _has_points(session: Session, job_id: UUID) -> bool:
    return bool(session.scalar(select(exists().where(MetricChunk.job_id == job_id))))


def _table(job_id: UUID) -> Iterator[bytes]:
    """One row per point: name, optimizer step, value (may be `nan` or `inf`), seconds since the start of the run."""
    yield _lines([("name", "step", "value", "wall_seconds")])
    for name, curve in read.pages(job_id):
        for start in range(0, len(curve.steps), ROWS):
            part = slice(start, start + ROWS)
            seconds = [round(second, 4) for second in curve.wall_seconds[part].tolist()]
            columns = curve.steps[part].tolist(), curve.values[part].tolist(), seconds
            yield _lines([(name, *row) for row in zip(*columns, strict=True)])


def _lines(rows: Sequence[tuple[object, ...]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()
