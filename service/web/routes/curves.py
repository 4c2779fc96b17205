"""`/v1/comparisons/{id}/curves`: mean and range of the curves of a task's final runs, and their last values."""

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
from service.specs.text import counted
from service.web.dependencies import Caller, ComparisonId, Database, StrictQuery

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])


class CurvesQuery(StrictQuery):
    """Selection of curves."""

    task: int = Field(1, ge=1, description="Number of the task in the plan, from 1.")
    metric: str = Field("val_accuracy", min_length=1, max_length=128, pattern=STORABLE)
    along: Literal["steps", "wall_seconds"] = Field(
        "steps", description="x axis of the curves: optimizer steps, or seconds since the start of the run."
    )


class BandView(Output):
    """Mean and range of an optimizer's finished runs, at each x that all of them reached."""

    label: str
    runs: int
    x: list[float] = Field(description="Optimizer steps, or seconds since the start of the run.")
    mean: list[float]
    low: list[float] = Field(
        description="Lowest value of any run; where neighboring points are averaged, of any of these points."
    )
    high: list[float] = Field(
        description="Highest value of any run; where neighboring points are averaged, of any of these points."
    )


class LostView(Output):
    """The finite part of a diverged run's curve."""

    label: str
    x: list[float]
    y: list[float]


class FinalView(Output):
    """Last value of a finished run."""

    label: str
    job: UUID
    value: float


class CurvesAnswer(Output):
    """A metric of all final runs of a task.

    Curves have at most 160 points; longer ones are averaged over neighboring points. If all curves together have more
    than two million points, each is first reduced to its extremes.
    """

    task: str
    metric: str
    along: str
    bands: list[BandView]
    diverged: list[LostView]
    finals: list[FinalView] = Field(description="Last value of the metric in each finished run.")


@router.get("/{comparison_id}/curves", response_model=CurvesAnswer, summary="Show the curves of a comparison")
def show(session: Database, _: Caller, comparison_id: ComparisonId, query: Annotated[CurvesQuery, Query()]) -> Response:
    """Mean and range over seeds of a metric's curves, for each optimizer of a task. Only finished runs count."""
    answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
    if query.task > len(answer.tasks):
        raise Invalid.field(
            "task", f"unknown task {query.task}; the comparison has {counted(len(answer.tasks), 'task')}"
        )
    task = answer.tasks[query.task - 1]
    jobs = [job for group in task.groups for job in group.jobs]
    curves = read.curves(session, jobs, [query.metric])
    view = curves_answer(task, query.metric, query.along, traces.curves_by_group(task, curves), curves)
    return Response(view.model_dump_json(), media_type="application/json")


def curves_answer(
    task: TaskAnswer,
    metric: str,
    along: traces.Along,
    runs: dict[str, traces.GroupCurves],
    curves: dict[UUID, dict[str, read.Curve]],
) -> CurvesAnswer:
    """Build the response for a task from its curves."""
    bands = {label: traces.band(group.traces(metric, along)) for label, group in runs.items()}
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
            LostView(label=label, x=trace.x.tolist(), y=trace.y.tolist())
            for label, group in runs.items()
            for trace in group.diverged_traces(metric, along)
        ],
        finals=[
            FinalView(label=group.label, job=job, value=float(trace.y[-1]))
            for group in task.groups
            for job in group.jobs
            if job not in group.diverged_jobs and (trace := traces.trace(curves.get(job, {}).get(metric), "steps"))
        ],
    )
