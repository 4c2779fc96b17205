"""`/v1/code`: upload, list, show, compare and delete code."""

from __future__ import annotations

import asyncio
import difflib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from service.code import checks, versions
from service.code.reader import MAX_WAITING
from service.code.schemas import Check, CodeChange, CodeDetail, CodeKind, CodeView
from service.code.source import MAX_BYTES
from service.code.support import support
from service.errors import Forbidden, Invalid, Malformed
from service.jobs import queue
from service.specs.bodies import Label, Page
from service.specs.catalog.declaration import Declaration, default_space
from service.specs.patterns import CODE_NAME, STORABLE
from service.storage.database import transaction
from service.storage.tables import CodeVersion
from service.web.bounded_queue import BoundedQueue
from service.web.dependencies import Caller, Database, PassingCaller, StrictQuery, from_cursor, next_cursor
from service.web.routes.catalog import params_schema

router = APIRouter(prefix="/v1/code", tags=["code"])
LISTED = "code, newest first"
MAX_DIFF_LINES = 2000
"""The time to compare two files grows with the square of their lines."""
FILE = {
    "requestBody": {
        "required": True,
        "content": {"text/x-python": {"schema": {"type": "string", "maxLength": MAX_BYTES}}},
    }
}
READING = BoundedQueue("code", MAX_WAITING, "uploads of code")
"""One file is read at a time, because reading takes a process and up to ten seconds of its time."""


class UploadQuery(StrictQuery):
    """What the file defines, and its name."""

    kind: CodeKind = Field(description="What the file defines.")
    name: str = Field(pattern=f"^{CODE_NAME}$", description="Jobs refer to the code as USER/NAME.", examples=["mine"])
    file: str | None = Field(
        None, min_length=1, max_length=100, pattern=STORABLE, description="Name of the file, for messages."
    )


class ListQuery(StrictQuery):
    """A page of the list."""

    owner: Label | None = Field(None, description="Only code of this user.")
    name: str | None = Field(None, pattern=f"^{CODE_NAME}$", description="Only code of this name, without its owner.")
    limit: int = Field(50, ge=1, le=500)
    after: str | None = Field(None, max_length=64, description="Cursor: `next` of the previous page.")


def _view(row: CodeVersion) -> CodeView:
    return CodeView(
        name=row.version,
        kind="optimizer",
        title=row.declaration["title"],
        owner=row.user.name,
        sha256=row.sha256,
        outcome=checks.outcome(row),
        created_at=row.created_at,
    )


def _detail(row: CodeVersion) -> CodeDetail:
    declared = Declaration.model_validate(row.declaration)
    params = declared.params_model
    return CodeDetail(
        **_view(row).model_dump(),
        file=row.file,
        source=row.source,
        params=params_schema(params),
        space=declared.space or default_space(params()),
        checks=None if row.checks is None else [Check.model_validate(check) for check in row.checks],
        needs=list(declared.needs),
    )


@router.post(
    "",
    status_code=201,
    response_model=CodeDetail,
    openapi_extra=FILE,
    responses={200: {"model": CodeDetail, "description": "The same file is stored already"}},
    summary="Upload code",
)
async def add(
    request: Request, response: Response, user: PassingCaller, query: Annotated[UploadQuery, Query()]
) -> CodeDetail:
    """Upload a Python file with an optimizer of your own. The request body is the file.

    It becomes the newest version of USER/NAME; versions never change. The file is read, not executed: it must define
    a subclass of `torch.optim.Optimizer` or a function `make(model, ...)`, and each parameter needs a default.
    """
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        raise Malformed("send the Python file itself as the body, not a form: curl --data-binary @mine.py")
    content = await request.body()
    file = (query.file or f"{query.name}.py").rpartition("/")[2]

    def store() -> tuple[CodeDetail, bool]:
        if not (supported := support())["accepted"]:
            raise Forbidden(f"code is {supported['runs']}")
        id_, is_new = versions.add(user, query.name, file, content)
        with transaction() as session:
            detail = _detail(session.get_one(CodeVersion, id_))
        if is_new:
            queue.wake()  # a worker tests it
        return detail, is_new

    detail, is_new = await asyncio.wrap_future(READING.submit(store))
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/code/{detail.name}"
    return detail


@router.get("", response_model=Page[CodeView], summary="List code")
def show_all(session: Database, _: Caller, query: Annotated[ListQuery, Query()]) -> Page[CodeView]:
    """Versions of all users' code, newest first."""
    after = from_cursor(LISTED, query.after)
    rows, has_more = versions.view_all(session, query.limit, after, query.owner, query.name)
    next_ = next_cursor(LISTED, [row.id for row in rows], has_more)
    return Page(data=[_view(row) for row in rows], has_more=has_more, next=next_)


Owner = Annotated[str, Path(examples=["ada"])]
Version = Annotated[str, Path(examples=["mine@3f2a9c71"], description="Name and version; without one, the newest.")]


@router.get("/{owner}/{name}", response_model=CodeDetail, summary="Show code")
def show(session: Database, _: Caller, owner: Owner, name: Version) -> CodeDetail:
    """A version of uploaded code: its source, parameters and default search space."""
    return _detail(versions.get(session, f"{owner}/{name}"))


class DiffQuery(StrictQuery):
    """The other version."""

    old: str = Field(max_length=64, description="Name of the older version, such as ada/mine@3f2a9c71.")


@router.get("/{owner}/{name}/diff", response_model=CodeChange, summary="Compare two versions of code")
def diff(session: Database, _: Caller, owner: Owner, name: Version, query: Annotated[DiffQuery, Query()]) -> CodeChange:
    """What changed from an older version to this one."""
    old, new = versions.get(session, query.old), versions.get(session, f"{owner}/{name}")
    for version in (old, new):
        if version.source.count("\n") > MAX_DIFF_LINES:
            raise Invalid.field("old", f"{version.version} has more than {MAX_DIFF_LINES:,} lines, too many to compare")
    lines = difflib.unified_diff(
        old.source.splitlines(keepends=True), new.source.splitlines(keepends=True), old.version, new.version
    )
    return CodeChange(old=old.version, new=new.version, diff="".join(lines))


@router.delete("/{owner}/{name}", status_code=204, summary="Delete a version of code")
def remove(
    session: Database,
    user: Caller,
    owner: Owner,
    name: Annotated[str, Path(examples=["mine@3f2a9c71"], description="Name and version.")],
) -> None:
    """Delete a version of your own that no job and no running comparison uses; admins can delete any."""
    versions.remove(session, user, f"{owner}/{name}")
