"""`/v1/comparisons`: submit, list, show, report, cancel."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from service.comparisons import lifecycle
from service.comparisons.answers import ComparisonAnswer, ComparisonDryRun, ComparisonSummary
from service.comparisons.design.requests import ComparisonRequest
from service.metrics import read
from service.reports import rendering, sources
from service.specs.bodies import ARCHIVED, ComparisonChanges, Page
from service.specs.formats import ReportFormat
from service.storage import idempotency
from service.storage.database import transaction
from service.storage.tables import User
from service.web.dependencies import (
    Caller,
    ComparisonId,
    Database,
    IdempotencyKey,
    PassingCaller,
    PassingComparisonId,
    StrictQuery,
    from_cursor,
    next_cursor,
)
from service.web.figure_queue import draw_in_queue
from service.web.requested_code import RequestedCode

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])
ROUTE = "POST /v1/comparisons"


class SubmitQuery(StrictQuery):
    """Options of a submission."""

    dry_run: bool = Field(
        False, description="Return the plan, its number of jobs and their estimated time without running any."
    )


class ListQuery(StrictQuery):
    """A page of the list."""

    archived: bool = Field(False, description=ARCHIVED)
    limit: int = Field(50, ge=1, le=500)
    after: str | None = Field(None, max_length=64, description="Cursor: `next` of the previous page.")


@router.post(
    "",
    status_code=202,
    dependencies=[RequestedCode],
    response_model=ComparisonAnswer,
    response_description="The new comparison",
    responses={200: {"model": ComparisonDryRun, "description": "Result of a dry run"}},
    summary="Start a comparison",
)
def submit(
    user: PassingCaller,
    body: ComparisonRequest,
    query: Annotated[SubmitQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Fix the plan and submit the runs that are due first.

    Identical jobs, finished or not, are reused unless `reuse` is false or times are compared.
    """
    if query.dry_run:
        return JSONResponse(lifecycle.dry_run(body).model_dump(mode="json"))
    comparison_id, answer = _submit(user, body, idempotency_key)
    return Response(answer, 202, {"Location": f"/v1/comparisons/{comparison_id}"}, "application/json")


def _submit(user: User, body: ComparisonRequest, key: str | None) -> tuple[UUID, str]:
    """Id and answer of the new comparison, or those of the first request with this idempotency key."""
    document = body.model_dump_json()
    if key is not None:
        with transaction() as session:
            stored = idempotency.stored_response(session, user, ROUTE, key, document)
        if stored:
            return stored
    plan = lifecycle.resolved_plan(body)
    with transaction() as session:

        def make() -> tuple[UUID, str]:
            comparison = lifecycle.create(session, user, plan)
            return comparison.id, lifecycle.answer(session, comparison).model_dump_json()

        return idempotency.once(session, user, ROUTE, key, document, make)


@router.get("", response_model=Page[ComparisonSummary], summary="List comparisons")
def show_all(session: Database, _: Caller, query: Annotated[ListQuery, Query()]) -> Page[ComparisonSummary]:
    """Comparisons of all users, newest first."""
    rows, has_more = lifecycle.find(
        session, query.limit, from_cursor("comparisons", query.after), archived=query.archived
    )
    ids = [row.id for row in rows]
    return Page(
        data=[lifecycle.summary(row) for row in rows], has_more=has_more, next=next_cursor("comparisons", ids, has_more)
    )


@router.get("/{comparison_id}", response_model=ComparisonAnswer, summary="Show a comparison")
def show(session: Database, _: Caller, comparison_id: ComparisonId) -> Response:
    """Status, progress, verdict and statistics of a comparison."""
    answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
    return Response(answer.model_dump_json(), media_type="application/json")


@router.patch(
    "/{comparison_id}", response_model=ComparisonSummary, summary="Rename, tag, annotate or archive a comparison"
)
def change(session: Database, user: Caller, comparison_id: ComparisonId, body: ComparisonChanges) -> ComparisonSummary:
    """Change what the owner of a comparison, or an admin, may change after the fact. Plan and runs stay as they are.

    The jobs that only this comparison needs are archived and brought back with it.
    """
    return lifecycle.summary(lifecycle.change(session, user, comparison_id, body))


class ReportQuery(StrictQuery):
    """Format of the report."""

    format: ReportFormat = "html"


@router.get("/{comparison_id}/report", response_class=Response, summary="Download a report")
async def report(
    request: Request, _: PassingCaller, comparison_id: PassingComparisonId, query: Annotated[ReportQuery, Query()]
) -> Response:
    """The result as a file: a self-contained HTML page, a table as CSV or LaTeX, or JSON.

    HTML and LaTeX end with the source of the uploaded code that the runs use.
    """
    if query.format == "html":
        file = await draw_in_queue(request, lambda: _report(comparison_id, "html"))
    else:
        file = await run_in_threadpool(_report, comparison_id, query.format)
    disposition = f'inline; filename="{file.file_name}"'
    return Response(file.body, media_type=file.media_type, headers={"Content-Disposition": disposition})


def _report(comparison_id: UUID, format: ReportFormat) -> rendering.Report:
    """The report, made without an open session."""
    with transaction() as session:
        answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
        is_page = format == "html"  # other formats contain no curves, which are large
        curves = read.curves(session, rendering.job_ids(answer), rendering.curve_names(answer)) if is_page else {}
        files = sources.used_by(session, answer) if format in ("html", "latex") else ()
    return rendering.render(format, answer, curves, files)


@router.post(
    "/{comparison_id}/cancel", status_code=202, response_model=ComparisonSummary, summary="Cancel a comparison"
)
def cancel(session: Database, user: Caller, comparison_id: ComparisonId) -> ComparisonSummary:
    """Cancel a comparison and those of its jobs that no other comparison or user needs."""
    return lifecycle.summary(lifecycle.cancel(session, user, comparison_id))
