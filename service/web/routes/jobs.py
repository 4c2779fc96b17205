"""`/v1/jobs`: submit, list, show, cancel, retry, history, metrics."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from service.errors import Invalid
from service.jobs import actions, lookup, submission
from service.jobs.requests import JobRequest
from service.jobs.schemas import (
    ActionOutcomes,
    ActionRequest,
    DryRun,
    EventView,
    History,
    JobCounts,
    JobView,
    OutcomeView,
    Progress,
)
from service.metrics import read
from service.metrics.schemas import CurveView, Metrics
from service.specs.bodies import ARCHIVED, Changes, IdPart, Label, Page
from service.specs.patterns import STORABLE, TAG
from service.specs.states import JobStatus
from service.storage import idempotency, ids
from service.storage.tables import Comparison, Job
from service.web.dependencies import Caller, Database, IdempotencyKey, JobId, StrictQuery, from_cursor, next_cursor
from service.web.etags import etag_of, is_unmodified
from service.web.requested_code import RequestedCode

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
ROUTE = "POST /v1/jobs"
MAX_POINTS = 200_000
"""Points in a response; each takes some 200 bytes of memory."""


def view(job: Job) -> JobView:
    """The row as a response body."""
    return JobView.model_validate(
        {
            **{name: getattr(job, name, None) for name in JobView.model_fields},
            "user": job.user.name,
            "worker": job.worker_id,
            "progress": Progress(step=job.step, total_steps=job.total_steps),
        }
    )


class SubmitQuery(StrictQuery):
    """Options of a submission."""

    dry_run: bool = Field(
        False, description="Validate the request and return the resolved spec without creating a job."
    )


class MetricsQuery(StrictQuery):
    """Selection and resolution of curves."""

    names: str | None = Field(
        None, max_length=4096, pattern=STORABLE, description="Names of metrics, separated by commas; default: all."
    )
    max_points: int | None = Field(
        None, ge=4, le=MAX_POINTS, description="Downsample each curve to at most this many points."
    )
    from_step: int = Field(0, ge=0, lt=2**31, description="First step of the curves.")
    to_step: int = Field(2**31 - 1, ge=0, lt=2**31, description="Last step of the curves.")


@router.post(
    "",
    status_code=202,
    dependencies=[RequestedCode],
    response_model=JobView,
    response_description="The new job",
    responses={200: {"model": DryRun, "description": "Result of a dry run"}},
    summary="Submit a job",
)
def submit(
    session: Database,
    user: Caller,
    body: JobRequest,
    query: Annotated[SubmitQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a training run."""
    if query.dry_run:
        submission.check(session, body)
        options = {name: getattr(body, name) for name in DryRun.model_fields.keys() - {"spec", "warnings", "model"}}
        spec, warnings, model = (
            body.train_spec.model_dump(mode="json"),
            submission.warnings(body),
            submission.fitted(body),
        )
        return JSONResponse(DryRun(spec=spec, warnings=warnings, model=model, **options).model_dump(mode="json"))

    def make() -> tuple[UUID, str]:
        job = submission.submit(session, user, body)
        return job.id, view(job).model_dump_json()

    job_id, answer = idempotency.once(session, user, ROUTE, idempotency_key, body.model_dump_json(), make)
    return Response(answer, 202, {"Location": f"/v1/jobs/{job_id}"}, "application/json")


class FilterQuery(StrictQuery):
    """Filters of the list."""

    status: str | None = Field(None, max_length=64, description="One or more statuses, separated by commas.")
    dataset: Label | None = None
    model: Label | None = None
    optimizer: Label | None = None
    user: Label | None = None
    tag: str | None = Field(None, max_length=129, description="A tag of the jobs, as KEY:VALUE.", pattern=TAG)
    comparison: IdPart | None = Field(None, description="Only jobs that this comparison uses, by its id.")
    search: str | None = Field(
        None,
        max_length=64,
        pattern=STORABLE,
        description="Text to find in data set, model, optimizer, user, name and values of tags; case is ignored.",
    )
    archived: bool = Field(False, description=ARCHIVED)

    def as_filter(self, session: Session) -> lookup.Filter:
        """The parameters as a filter."""
        key, _, value = (self.tag or "").partition(":")
        return lookup.Filter(
            _statuses(self.status),
            self.dataset,
            self.model,
            self.optimizer,
            self.user,
            (key, value) if self.tag else None,
            ids.resolve(session, Comparison, self.comparison) if self.comparison else None,
            self.search,
            self.archived,
        )


def _statuses(text: str | None) -> list[JobStatus] | None:
    """The statuses in a list such as `queued,running`. Raises Invalid."""
    if text is None:
        return None
    unknown = [name for name in text.split(",") if name not in {*JobStatus}]
    if unknown:
        known = ", ".join(JobStatus)
        raise Invalid.field(
            "status", f"unknown status '{unknown[0]}'; choose one or more of {known}, separated by commas"
        )
    return [JobStatus(name) for name in text.split(",")]


class ListQuery(FilterQuery):
    """A page of the list."""

    sort: Literal["newest", "oldest"] = Field("newest", description="Order by time of submission.")
    limit: int = Field(50, ge=1, le=500)
    after: str | None = Field(None, max_length=64, description="Cursor: `next` of the previous page.")


@router.get("", response_model=Page[JobView], summary="List jobs")
def show_all(session: Database, _: Caller, query: Annotated[ListQuery, Query()]) -> Page[JobView]:
    """Jobs of all users, newest first by default."""
    listed, oldest_first = f"jobs, {query.sort} first", query.sort == "oldest"
    after = from_cursor(listed, query.after)
    rows, has_more = lookup.find(session, query.as_filter(session), query.limit, after, oldest_first=oldest_first)
    next_ = next_cursor(listed, [job.id for job in rows], has_more)
    return Page(data=[view(job) for job in rows], has_more=has_more, next=next_)


@router.get("/counts", response_model=JobCounts, summary="Count jobs")
def show_counts(session: Database, _: Caller, query: Annotated[FilterQuery, Query()]) -> JobCounts:
    """Number of jobs that match the filters, by status."""
    return JobCounts(counts=lookup.count(session, query.as_filter(session)))


@router.post("/actions", response_model=ActionOutcomes, summary="Cancel or retry jobs")
def act(session: Database, user: Caller, body: ActionRequest) -> ActionOutcomes:
    """Apply an action to each of several jobs. If it is refused for one job, the others are not affected.

    A part of an id that no job has, or more than one, is an error, and no job is affected.
    """
    jobs = [ids.resolve(session, Job, part, f"/jobs/{number}") for number, part in enumerate(body.jobs)]
    apply = actions.cancel_each if body.action == "cancel" else actions.retry_each
    results = apply(session, user, jobs)
    return ActionOutcomes(outcomes=[OutcomeView.model_validate(result) for result in results])


@router.get("/{job_id}", response_model=JobView, responses={304: {"description": "Not modified"}}, summary="Show a job")
def show(
    session: Database,
    _: Caller,
    job_id: JobId,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Request, state and result of a job. With `If-None-Match`, 304 if the job is unchanged."""
    body = view(lookup.get(session, job_id)).model_dump_json().encode()
    etag = etag_of(body)
    if is_unmodified(etag, if_none_match):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})


@router.get("/{job_id}/history", response_model=History, summary="Show the history of a job")
def show_history(session: Database, _: Caller, job_id: JobId) -> History:
    """All events of a job, oldest first: changes of its status and notes about its attempts."""
    return History(events=[EventView.model_validate(event) for event in lookup.history(session, job_id)])


@router.patch("/{job_id}", response_model=JobView, summary="Rename, tag, annotate or archive a job")
def change(session: Database, user: Caller, job_id: JobId, body: Changes) -> JobView:
    """Change what the owner of a job, or an admin, may change after the fact. The run itself stays as it is."""
    return view(actions.change(session, user, job_id, body))


@router.post("/{job_id}/cancel", status_code=202, response_model=JobView, summary="Cancel a job")
def cancel(session: Database, user: Caller, job_id: JobId) -> JobView:
    """Cancel a queued job immediately, or ask a running one to stop."""
    return view(actions.cancel(session, user, job_id))


@router.post("/{job_id}/retry", status_code=202, response_model=JobView, summary="Retry a job")
def retry(session: Database, user: Caller, job_id: JobId, response: Response) -> JobView:
    """Submit a failed or cancelled job again as a new job."""
    job = actions.retry(session, user, job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return view(job)


@router.get("/{job_id}/metrics", response_model=Metrics, summary="Show the metrics of a job")
def show_metrics(session: Database, _: Caller, job_id: JobId, query: Annotated[MetricsQuery, Query()]) -> Metrics:
    """Curves of a job's metrics. Downsampled curves keep their first and last points and the extremes in between.

    A response has at most 200,000 points; longer curves are read downsampled or in parts, by `from_step` and `to_step`.
    """
    lookup.get(session, job_id)
    names = query.names.split(",") if query.names is not None else None
    steps = range(query.from_step, query.to_step + 1)
    stored = read.count(session, job_id, names, steps)
    points = sum(stored.values() if query.max_points is None else (min(n, query.max_points) for n in stored.values()))
    if points > MAX_POINTS:
        raise Invalid.field(
            "max_points",
            f"these curves have {points:,} points; at most {MAX_POINTS:,} are returned at once: set max_points to "
            f"{MAX_POINTS // len(stored):,} or less, choose `names`, or read parts by `from_step` and `to_step`",
        )
    curves = read.thinned(session, job_id, names, steps, query.max_points)
    return Metrics(
        metrics={
            name: CurveView.model_construct(
                steps=curve.steps.tolist(),
                values=[value if value - value == 0 else None for value in curve.values.tolist()],
                wall_seconds=[round(seconds, 4) for seconds in curve.wall_seconds.tolist()],
            )
            for name, curve in curves.items()
        }
    )
