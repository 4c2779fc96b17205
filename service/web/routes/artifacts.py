"""`/v1/jobs/{id}/artifacts`: the files of a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from service.jobs import artifacts
from service.web.dependencies import Caller, Database, JobId

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["jobs"])


@router.get("", response_model=artifacts.Artifacts, summary="List the files of a job")
def show_all(session: Database, _: Caller, job_id: JobId) -> artifacts.Artifacts:
    """Checkpoints, curves as CSV, the JSON documents spec, summary and environment, and the uploaded code."""
    return artifacts.artifacts(session, job_id)


@router.get(
    "/{name}",
    response_class=StreamingResponse,
    responses={206: {"description": "Part of a checkpoint"}},
    summary="Download a file of a job",
)
def download(
    session: Database,
    _: Caller,
    job_id: JobId,
    name: str,
    range: Annotated[str | None, Header(description="Byte range of a checkpoint, such as bytes=0-1023.")] = None,
) -> StreamingResponse:
    """Checkpoints support range requests. The `ETag` of checkpoints and uploaded code is their SHA-256."""
    file = artifacts.download(session, job_id, name, range)
    headers = {"Content-Disposition": f'attachment; filename="{file.file_name}"'}
    if file.size_bytes is not None:
        headers["Content-Length"] = str(file.size_bytes)
    if file.sha256 is not None:
        headers["ETag"] = f'"{file.sha256}"'
    if file.media_type == artifacts.BINARY:
        headers["Accept-Ranges"] = "bytes"
    if file.part is not None:
        headers["Content-Range"] = file.part
    status = 206 if file.part else 200
    return StreamingResponse(file.blocks, status, headers, file.media_type)
