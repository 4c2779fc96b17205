"""`/v1/comparisons/{id}/curves`: the curves of a task's reported runs as means with bands, and where each ended."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from service.comparisons import lifecycle
from service.comparisons.answers import TaskAnswer
from service.errors import Invalid
from service.metrics import read
from service.reports import traces
from service.specs.bodies import Output
from service.specs.patterns import STORABLE
from service.web.dependencies import Caller, Database, StrictQuery

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])


class CurvesQuery(StrictQuery):
    """Which curves."""

    task: int = Field(1, ge=1, description="By its place in the plan, from 1.")
    metric: str = Field("val_accuracy", min_length=1, max_length=128, pattern=STORABLE)
    along: Literal["steps", "wall_seconds"] = "steps"


class BandView(Output):
    """The mean of an optimizer's finished runs, at each x that all of them have passed, and their range."""

    label: str
    runs: int
    x: list[float] = Field(description="Optimizer steps, or seconds since the run began.")
    mean: list[float]
    low: list[float] = Field(description="The lowest run; of averaged points the lowest of all.")
    high: list[float] = Field(description="The highest run; of averaged points the highest of all.")


class LostView(Output):
    """A run that diverged, as far as it was finite."""

    label: str
    x: list[float]
    y: list[float]


class FinalView(Output):
    """Where a finished run ended."""

    label: str
    job: UUID
    value: float


class CurvesAnswer(Output):
    """A metric of all reported runs of a task; at most 160 points a curve, neighbouring ones averaged in its mean."""

    task: str
    metric: str
    along: str
    bands: list[BandView]
    diverged: list[LostView]
    finals: list[FinalView] = Field(description="The metric's last value of each finished run.")


@router.get("/{comparison_id}/curves", response_model=CurvesAnswer)
def show(session: Database, _: Caller, comparison_id: UUID, query: Annotated[CurvesQuery, Query()]) -> Response:
    """Means with bands over the seeds, of the runs that have ended."""
    answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
    if query.task > len(answer.tasks):
        raise Invalid.field("task", f"the comparison has {len(answer.tasks)}, and {query.task} is none of them")
    task = answer.tasks[query.task - 1]
    jobs = [job for group in task.groups for job in group.jobs]
    curves = read.curves(session, jobs, [query.metric])
    found = curves_answer(task, query.metric, query.along, traces.runs_of(task, curves), curves)
    return Response(found.model_dump_json(), media_type="application/json")


def curves_answer(
    task: TaskAnswer,
    metric: str,
    along: traces.Along,
    runs: dict[str, traces.RunsOf],
    curves: dict[UUID, dict[str, read.Curve]],
) -> CurvesAnswer:
    """The bands of a task's runs, whose curves have been read."""
    bands = {label: traces.band(of.traces(metric, along)) for label, of in runs.items()}
    return CurvesAnswer(
        task=task.label,
        metric=metric,
        along=along,
        bands=[
            BandView(
                label=label,
                runs=band.runs,
                x=band.x.tolist(),
                mean=band.mean.tolist(),
                low=band.low.tolist(),
                high=band.high.tolist(),
            )
            for label, band in bands.items()
            if band is not None
        ],
        diverged=[
            LostView(label=label, x=one.x.tolist(), y=one.y.tolist())
            for label, of in runs.items()
            for one in of.diverged_traces(metric, along)
        ],
        finals=[
            FinalView(label=group.label, job=job, value=float(one.y[-1]))
            for group in task.groups
            for job in group.jobs
            if job not in group.diverged_jobs and (one := traces.trace(curves.get(job, {}).get(metric), "steps"))
        ],
    )
