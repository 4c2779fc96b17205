"""The Python SDK: methods for kotrain's HTTP API that return the server's own models."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import httpx2
from pydantic import BaseModel

from kotrain import address, waiting
from kotrain.code_calls import CodeCalls
from kotrain.errors import WaitTimeout
from kotrain.transport import OnSent, Transport
from kotrain.waiting import FIRST_POLL_SECONDS, MAX_POLL_SECONDS
from service.comparisons.answers import CompareAnswer, ComparisonAnswer, ComparisonDryRun, ComparisonSummary
from service.comparisons.boards import Leaderboard
from service.datasets.schemas import DatasetDetail, DatasetList, DatasetView
from service.jobs.schemas import DryRun, History, JobView
from service.metrics.schemas import Metrics
from service.specs.bodies import Catalog, Me, ModelDetail, ModelLibraryDetail, OptimizerDetail, Page
from service.specs.formats import FileFormat, ReportFormat
from service.specs.states import ComparisonStatus, JobStatus

if TYPE_CHECKING:  # their validators take long to build, and a request is mostly a plain dict
    from service.comparisons.design.requests import ComparisonRequest
    from service.jobs.requests import JobRequest


JobLike = JobView | uuid.UUID | str
ComparisonLike = ComparisonAnswer | ComparisonSummary | uuid.UUID | str
Jobs = list[JobView]
Datasets = list[DatasetView]
OnProgress = Callable[[Jobs], None]
REPEATED = frozenset({409, 429, 503})
"""Statuses on which a submission is repeated; 409: an earlier attempt whose response was lost is still in progress."""


class Client(CodeCalls):
    """A client for one kotrain server.

    Args:
        url: address of the API. Default: `KOTRAIN_URL`, else the stack that `kotrain up` runs from the home
            (`KOTRAIN_HOME`), else http://127.0.0.1:8000.
        key: API key. Default: `KOTRAIN_KEY`, else, for the stack that runs from the home, the key in the home.
        http: an HTTP client to use, with its own base URL and timeouts; the caller closes it.

    Every method raises `ConnectionFailed` if the API cannot be reached and an `ApiError` if it returns an error; all
    exceptions of the SDK are a `KotrainError`. Addresses on this machine are never reached through a proxy.
    Ids may be given as strings, also shortened to a beginning or an end that only one id has.
    Requests that fail on the way or return 429 or 503 are repeated a few times first, which is safe for all of them.

        with Client() as client:
            job = client.submit({"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 30}})
            print(client.wait(job).summary.metrics["test_accuracy"])
    """

    def __init__(self, url: str | None = None, key: str | None = None, http: httpx2.Client | None = None) -> None:
        self._owns_http = http is None
        self._http = http or address.http_client(url)
        self.url = str(self._http.base_url).rstrip("/")
        self._transport = Transport(self._http, address.key_for(self.url, key))

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- jobs ---

    @overload
    def submit(
        self,
        spec: Mapping[str, Any] | JobRequest,
        *,
        idempotency_key: str | None = None,
        dry_run: Literal[False] = False,
    ) -> JobView: ...

    @overload
    def submit(
        self, spec: Mapping[str, Any] | JobRequest, *, idempotency_key: str | None = None, dry_run: Literal[True]
    ) -> DryRun: ...

    def submit(
        self,
        spec: Mapping[str, Any] | JobRequest,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> JobView | DryRun:
        """Submit a training run; with `dry_run` only validate it and return the complete spec.

        A repeated `idempotency_key` returns the job of the first request, for a day; by default each call uses a new
        key. Raises `InvalidRequest`, whose `fields` list the invalid fields.
        """
        body = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else spec
        if dry_run:
            return self._transport.call(DryRun, "POST", "/v1/jobs", query={"dry_run": "true"}, body=body)
        return self._transport.call(
            JobView,
            "POST",
            "/v1/jobs",
            body=body,
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            repeat_on=REPEATED,
        )

    def get(self, job: JobLike) -> JobView:
        """The current state of a job. Raises `NotFound`, and `InvalidRequest` for an ambiguous part of an id."""
        return self._transport.call(JobView, "GET", f"/v1/jobs/{id_of(job)}")

    def list(
        self,
        *,
        status: JobStatus | str | None = None,
        dataset: str | None = None,
        model: str | None = None,
        optimizer: str | None = None,
        user: str | None = None,
        tag: str | None = None,
        archived: bool = False,
        page_size: int = 100,
    ) -> Iterator[JobView]:
        """All matching jobs, newest first; `tag` has the form `KEY:VALUE`. Pages are fetched lazily."""
        query = {
            "status": status,
            "dataset": dataset,
            "model": model,
            "optimizer": optimizer,
            "user": user,
            "tag": tag,
            "archived": archived or None,
            "limit": page_size,
        }
        after = None
        while True:
            page = self._transport.call(Page[JobView], "GET", "/v1/jobs", query={**query, "after": after})
            yield from page.data
            if page.next is None:
                return
            after = page.next

    def cancel(self, job: JobLike) -> JobView:
        """Cancel a queued job, or ask a running one to stop. Raises `Conflict` if it has ended."""
        return self._transport.call(JobView, "POST", f"/v1/jobs/{id_of(job)}/cancel")

    def change(self, job: JobLike, **changes: Any) -> JobView:
        """Change a job of yours: its `name`, `tags` (all of them), `note`, or whether it is `archived`."""
        return self._transport.call(JobView, "PATCH", f"/v1/jobs/{id_of(job)}", body=changes)

    def retry(self, job: JobLike) -> JobView:
        """A new job with the spec of a failed or cancelled one. Repeated calls return the same job."""
        return self._transport.call(JobView, "POST", f"/v1/jobs/{id_of(job)}/retry")

    def history(self, job: JobLike) -> History:
        """The events of a job, oldest first."""
        return self._transport.call(History, "GET", f"/v1/jobs/{id_of(job)}/history")

    def metrics(self, job: JobLike, names: Iterable[str] | None = None, max_points: int | None = None) -> Metrics:
        """The curves of a job by metric name. `max_points` downsamples each curve and keeps its extremes."""
        query = {"names": ",".join(names) if names is not None else None, "max_points": max_points}
        return self._transport.call(Metrics, "GET", f"/v1/jobs/{id_of(job)}/metrics", query=query)

    @overload
    def wait(self, jobs: JobLike, timeout: float | None = None, on_progress: OnProgress | None = None) -> JobView: ...  # type: ignore[overload-overlap]  # a str iterates over str

    @overload
    def wait(
        self, jobs: Iterable[JobLike], timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Jobs: ...

    def wait(
        self,
        jobs: JobLike | Iterable[JobLike],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobView | Jobs:
        """Wait until a job or several jobs have ended, in any status, and return them in the same order.

        `on_progress` is called after each round of polling with all jobs polled so far. Raises `WaitTimeout` after
        `timeout` seconds; the jobs continue.
        """
        if isinstance(jobs, JobLike):
            return waiting.wait(self.get, [id_of(jobs)], timeout, on_progress)[0]
        return waiting.wait(self.get, [id_of(job) for job in jobs], timeout, on_progress)

    # --- comparisons ---

    @overload
    def start_comparison(
        self,
        request: Mapping[str, Any] | ComparisonRequest,
        *,
        idempotency_key: str | None = None,
        dry_run: Literal[False] = False,
    ) -> ComparisonAnswer: ...

    @overload
    def start_comparison(
        self,
        request: Mapping[str, Any] | ComparisonRequest,
        *,
        idempotency_key: str | None = None,
        dry_run: Literal[True],
    ) -> ComparisonDryRun: ...

    def start_comparison(
        self,
        request: Mapping[str, Any] | ComparisonRequest,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> ComparisonAnswer | ComparisonDryRun:
        """Start a comparison of optimizers: missing runs are trained; `wait_for_comparison` returns the verdict.

        With `dry_run` only return the plan, with its number of jobs and their estimated time. Raises `InvalidRequest`,
        whose `fields` list the invalid fields.
        """
        body = request.model_dump(mode="json") if isinstance(request, BaseModel) else request
        if dry_run:
            return self._transport.call(
                ComparisonDryRun, "POST", "/v1/comparisons", query={"dry_run": "true"}, body=body
            )
        return self._transport.call(
            ComparisonAnswer,
            "POST",
            "/v1/comparisons",
            body=body,
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            repeat_on=REPEATED,
        )

    def comparison(self, comparison: ComparisonLike) -> ComparisonAnswer:
        """The progress of a comparison and its results so far. Raises `NotFound`."""
        return self._transport.call(ComparisonAnswer, "GET", f"/v1/comparisons/{_id_of(comparison)}")

    def comparisons(self, *, archived: bool = False, page_size: int = 100) -> Iterator[ComparisonSummary]:
        """All comparisons, newest first."""
        after = None
        while True:
            query = {"limit": page_size, "after": after, "archived": archived or None}
            page = self._transport.call(Page[ComparisonSummary], "GET", "/v1/comparisons", query=query)
            yield from page.data
            if page.next is None:
                return
            after = page.next

    def change_comparison(self, comparison: ComparisonLike, **changes: Any) -> ComparisonSummary:
        """Change a comparison of yours, as `change` does; the jobs that only it needs are archived with it."""
        return self._transport.call(ComparisonSummary, "PATCH", f"/v1/comparisons/{_id_of(comparison)}", body=changes)

    def cancel_comparison(self, comparison: ComparisonLike) -> ComparisonSummary:
        """Cancel a comparison and its unfinished, unshared jobs. Raises `Conflict` if it has ended."""
        return self._transport.call(ComparisonSummary, "POST", f"/v1/comparisons/{_id_of(comparison)}/cancel")

    def wait_for_comparison(
        self,
        comparison: ComparisonLike,
        timeout: float | None = None,
        on_progress: Callable[[ComparisonAnswer], None] | None = None,
    ) -> ComparisonAnswer:
        """Wait until a comparison has ended, in any status, and return it.

        `on_progress` is called with each polled state. Raises `WaitTimeout` after `timeout` seconds; the comparison
        continues.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        poll_seconds = FIRST_POLL_SECONDS
        while True:
            current = self.comparison(comparison)
            if on_progress is not None:
                on_progress(current)
            comparison = current.id  # a part of an id may become ambiguous while we wait
            if current.status is not ComparisonStatus.RUNNING:
                return current
            if deadline is not None and time.monotonic() + poll_seconds > deadline:
                raise WaitTimeout(f"comparison {current.id} has not ended after {timeout:g} s")
            time.sleep(poll_seconds)
            poll_seconds = min(1.5 * poll_seconds, MAX_POLL_SECONDS)

    def report(self, comparison: ComparisonLike, format: ReportFormat = "html") -> bytes:
        """The report of a comparison: a self-contained HTML page, a CSV or LaTeX table, or JSON."""
        path = f"/v1/comparisons/{_id_of(comparison)}/report"
        return self._transport.send("GET", path, query={"format": format}).content

    # --- data sets ---

    def datasets(self) -> Datasets:
        """All data sets: built-in and uploaded."""
        return self._transport.call(DatasetList, "GET", "/v1/datasets").data

    def dataset(self, name: str) -> DatasetDetail:
        """An uploaded data set, such as images/flowers. Raises `NotFound`."""
        return self._transport.call(DatasetDetail, "GET", f"/v1/datasets/{name}")

    def add_dataset(
        self,
        path: str | Path,
        name: str,
        *,
        format: FileFormat | None = None,
        label: str | None = None,
        image_size: int | None = None,
        drop: Iterable[str] = (),
        keep: Iterable[str] = (),
        on_sent: OnSent | None = None,
    ) -> DatasetDetail:
        """Upload a data set; jobs refer to it by the returned `name`, such as images/flowers.

        Args:
            path: an npz, csv, parquet or jsonl file, or a zip archive of images in class folders.
            name: at most 48 lower-case letters, digits and characters of `_.-`.
            format: default: the extension of the file name.
            label: the column of a table that holds the class; default `label`.
            image_size: side in pixels of the squares to which images of a zip archive are cropped; default: unchanged.
            drop: columns of a table to leave out.
            keep: columns of a table to read as numbers although they look like identifiers of the rows.
            on_sent: called with the number of bytes sent so far.

        Raises `InvalidRequest` if the file is invalid and `Conflict` if the name is taken.
        """
        file = Path(path)
        query = {
            "name": name,
            "format": format or file.suffix.lower().removeprefix("."),
            "label": label,
            "image_size": image_size,
            "drop": list(drop),
            "keep": list(keep),
        }
        return self._transport.upload(DatasetDetail, "/v1/datasets", file, query, on_sent)

    def remove_dataset(self, name: str) -> None:
        """Delete an uploaded data set of your own; admins can delete any.

        Raises `Conflict` while an unfinished job or comparison uses it.
        """
        self._transport.send("DELETE", f"/v1/datasets/{name}")

    # --- results, catalog, user ---

    def compare(self, dataset: str, model: str | None = None, **query: Any) -> CompareAnswer:
        """Compare groups of finished runs: differences, confidence intervals and p values.

        `query` takes the parameters of `GET /v1/compare`: `metric`, `group_by`, `target`, `tag` (`KEY:VALUE`), `where`
        and so on; repeatable parameters take a list.
        """
        return self._transport.call(
            CompareAnswer, "GET", "/v1/compare", query={"dataset": dataset, "model": model, **query}
        )

    def leaderboard(
        self, dataset: str, model: str, metric: str | None = None, *, archived: bool = False
    ) -> Leaderboard:
        """Optimizers ranked by mean, separately for each training setting."""
        query = {"dataset": dataset, "model": model, "metric": metric, "archived": archived or None}
        return self._transport.call(Leaderboard, "GET", "/v1/leaderboard", query=query)

    def catalog(self) -> Catalog:
        """Data sets, models, optimizers and schedules, with JSON Schemas of their parameters."""
        return self._transport.call(Catalog, "GET", "/v1/catalog")

    def optimizer(self, name: str) -> OptimizerDetail:
        """An optimizer of kotrain, or of a library such as `pytorch_optimizer/soap`: its parameters and needs."""
        return self._transport.call(OptimizerDetail, "GET", f"/v1/catalog/optimizers/{name}")

    def models(self, library: str) -> ModelLibraryDetail:
        """The models of a library, `torchvision` or `timm`."""
        return self._transport.call(ModelLibraryDetail, "GET", f"/v1/catalog/models/{library}")

    def model(self, name: str) -> ModelDetail:
        """A model of a library, such as `timm/resnet18`: the images that it takes, and its size."""
        return self._transport.call(ModelDetail, "GET", f"/v1/catalog/models/{name}")

    def me(self) -> Me:
        """The user who owns the API key."""
        return self._transport.call(Me, "GET", "/v1/me")


def id_of(job: JobLike) -> str:
    """The id of a job, given as a `JobView`, a UUID or a string."""
    return str(job.id if isinstance(job, JobView) else job)


def _id_of(comparison: ComparisonLike) -> str:
    return str(comparison if isinstance(comparison, uuid.UUID | str) else comparison.id)
