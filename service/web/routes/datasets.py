"""`/v1/datasets`: list data sets; upload, show and delete data sets of users."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from starlette.requests import ClientDisconnect

from service.accounts import api_keys
from service.config import settings
from service.datasets import registry
from service.datasets.schemas import DatasetDetail, DatasetList, Description
from service.datasets.uploads.reading import LABEL, Form
from service.datasets.uploads.upload import Arrival, arrive, refuse_large
from service.errors import Malformed, NotFound, TooMany, Unavailable
from service.specs.catalog.datasets import OWN
from service.specs.formats import FileFormat
from service.specs.patterns import OWN_NAME, STORABLE
from service.specs.text import counted
from service.storage.tables import User
from service.web.bounded_queue import BoundedQueue
from service.web.dependencies import Authorization, Caller, Database, PassingCaller, StrictQuery

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
CHUNK_BYTES = 2**20
FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


UPLOADS = BoundedQueue("uploads", 8, "uploads")
"""One file is read at a time, because reading needs memory for all of its records."""
IN_PROGRESS: Counter[UUID] = Counter()
"""User -> uploads that are received, wait or are read. Used in the event loop only."""


ColumnName = Annotated[str, Field(min_length=1, max_length=200, pattern=STORABLE)]


class UploadQuery(StrictQuery):
    """Name and format of an upload."""

    name: str = Field(
        pattern=f"^{OWN_NAME}$",
        description="Jobs refer to the data set as images/NAME, tables/NAME or texts/NAME, depending on the kind.",
        examples=["flowers"],
    )
    format: FileFormat = Field(
        description="npz: arrays x and y. csv, parquet: columns of numbers and a label, or a text and a label. "
        "jsonl: a text and a label per line. zip: images in one folder per class."
    )
    label: str = Field(LABEL, min_length=1, max_length=200, description="Name of the column that contains the class.")
    drop: list[ColumnName] = Field([], max_length=500, description="Columns to leave out; repeatable.")
    keep: list[ColumnName] = Field(
        [],
        max_length=500,
        description="Columns to read as numbers although they look like identifiers of the rows; repeatable.",
    )
    image_size: int | None = Field(
        None,
        ge=4,
        le=256,
        description="Crop the images of a zip archive to centered squares and resize them to this many pixels per "
        "side.",
    )


async def refuse_without_place(authorization: Authorization) -> None:
    """Refuse uploads beyond the user's limit without a query; a key that was revoked since then is refused later."""
    if (user_id := api_keys.known_user(authorization)) is not None:
        _raise_if_too_many(user_id)


@router.post("", status_code=201, response_model=DatasetDetail, openapi_extra=FILE, summary="Upload a data set")
async def add(
    request: Request,
    response: Response,
    _: Annotated[None, Depends(refuse_without_place)],
    user: PassingCaller,
    query: Annotated[UploadQuery, Query()],
    content_length: Annotated[int, Header(ge=0, include_in_schema=False)] = 0,
) -> DatasetDetail:
    """Upload a data set for use in jobs. The request body is the file."""
    form = Form(query.format, query.label, query.image_size, tuple(query.drop), tuple(query.keep))
    refuse_large(content_length, settings().max_upload_bytes)
    UPLOADS.raise_if_full()
    with _place_of(user):
        created = await _add(request, query.name, form, user, content_length)
    response.headers["Location"] = f"/v1/datasets/{created.name}"
    return await run_in_threadpool(registry.detail, created.name)


@contextmanager
def _place_of(user: User) -> Iterator[None]:
    """Count an upload of the user during the block. Raises TooMany."""
    _raise_if_too_many(user.id)
    IN_PROGRESS[user.id] += 1
    try:
        yield
    finally:
        IN_PROGRESS[user.id] -= 1
        if not IN_PROGRESS[user.id]:
            del IN_PROGRESS[user.id]


def _raise_if_too_many(user_id: UUID) -> None:
    """Raise TooMany if the user has as many uploads in progress as one may have."""
    limit = settings().max_uploads_per_user
    if IN_PROGRESS[user_id] >= limit:
        raise TooMany(
            f"you have {counted(limit, 'upload')} in progress, the limit (KOTRAIN_MAX_UPLOADS_PER_USER); wait "
            "for one to end"
        )


async def _add(request: Request, name: str, form: Form, user: User, announced_bytes: int) -> Description:
    """Receive a file and add it as a data set; if that fails, nothing of it remains."""
    config = settings()
    await run_in_threadpool(registry.refuse_taken, name, form.file_format)
    arrival = await run_in_threadpool(
        arrive, config.data, config.max_upload_bytes, announced_bytes, config.min_free_bytes
    )
    request.state.release_turn()  # others need not wait while the file is received
    try:
        await _receive(request, arrival)
        created = await asyncio.wrap_future(UPLOADS.submit(lambda: registry.add(arrival, name, form, user.name)))
    except asyncio.CancelledError:  # at shutdown; there is no time for a thread
        arrival.remove()
        raise Unavailable("this server is shutting down; upload the file again in a few seconds") from None
    except BaseException:
        await run_in_threadpool(arrival.remove)
        raise
    await run_in_threadpool(arrival.remove)
    return created


async def _receive(request: Request, arrival: Arrival) -> None:
    """Write the body to the disk while it is received, in larger chunks. Raises Malformed if it is interrupted."""
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                await run_in_threadpool(arrival.write, bytes(buffer))
                buffer.clear()
    except ClientDisconnect as error:
        raise Malformed("the upload was interrupted") from error
    await run_in_threadpool(arrival.write, bytes(buffer))
    await run_in_threadpool(arrival.finish)


@router.get("", response_model=DatasetList, summary="List data sets")
def show_all(_: Caller) -> DatasetList:
    """All built-in and uploaded data sets, and whether their files are present."""
    return DatasetList(data=registry.view_all())


def own_name(kind: Annotated[str, Path(examples=["images"])], name: Annotated[str, Path(examples=["flowers"])]) -> str:
    """The name of an uploaded data set, as jobs use it."""
    if kind not in OWN:
        raise NotFound(f"unknown kind of data set '{kind[:64]}'; choose one of {', '.join(OWN)}")
    return f"{kind}/{name[:64]}"


OwnName = Annotated[str, Depends(own_name)]


@router.get("/{kind}/{name}", response_model=DatasetDetail, summary="Show an uploaded data set")
def show(_: Caller, name: OwnName) -> DatasetDetail:
    """Properties of an uploaded data set, and some of its records."""
    return registry.detail(name)


@router.delete("/{kind}/{name}", status_code=204, summary="Delete an uploaded data set")
def remove(session: Database, user: Caller, name: OwnName, later: BackgroundTasks) -> None:
    """Delete an uploaded data set of your own; admins can delete any.

    It must not be in use by a queued or running job or a running comparison.
    """
    later.add_task(registry.sweep, registry.remove(session, user, name))
