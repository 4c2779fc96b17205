"""`/v1/comparisons/{id}/plots` and `/v1/jobs/{id}/plots`: figures as SVG and PNG."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from service.reports import figure_files
from service.reports.plot_names import Theme
from service.web.dependencies import (
    Caller,
    ComparisonId,
    Database,
    JobId,
    PassingCaller,
    PassingComparisonId,
    PassingJobId,
    StrictQuery,
)
from service.web.figure_queue import draw_in_queue

router = APIRouter(prefix="/v1", tags=["plots"])

FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media_type: {} for media_type in figure_files.MEDIA_TYPES.values()}}
}
FIGURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy of an SVG opened as a page: it has inline styles, and its color bars are images."""


class PlotQuery(StrictQuery):
    """Appearance of a figure."""

    theme: Theme = "light"
    width: int = Field(1360, ge=320, le=4000, description="Width of a PNG, in pixels; ignored for SVG.")


class TaskPlotQuery(PlotQuery):
    """Options of a comparison's figure."""

    task: str = Field("1", max_length=256, description="Task, by number from 1 or by label.")


class JobPlotQuery(PlotQuery):
    """Options of a job's figure."""

    log: bool = Field(False, description="Use a logarithmic value axis.")
    smooth: float = Field(0.0, ge=0, le=0.99, description="Smoothing factor of an exponential moving average; 0: none.")


@router.get(
    "/comparisons/{comparison_id}/plots", response_model=figure_files.Plots, summary="List the figures of a comparison"
)
def show_of_comparison(session: Database, _: Caller, comparison_id: ComparisonId) -> figure_files.Plots:
    """Figures of each task, and figures of all tasks together."""
    return figure_files.comparison_plots(session, comparison_id)


@router.get(
    "/comparisons/{comparison_id}/plots/{file}",
    response_class=Response,
    responses=FILES,
    summary="Download a figure of a comparison",
)
async def draw_of_comparison(
    request: Request,
    _: PassingCaller,
    comparison_id: PassingComparisonId,
    file: str,
    query: Annotated[TaskPlotQuery, Query()],
) -> Response:
    """A figure as `NAME.svg` or `NAME.png`. 409, with the reason, if it cannot be drawn."""
    name, options = figure_files.parse_file_name(file, query.theme, query.width)
    return _answer(
        await draw_in_queue(request, lambda: figure_files.comparison_plot(comparison_id, name, query.task, options))
    )


@router.get("/jobs/{job_id}/plots", response_model=figure_files.Plots, summary="List the figures of a job")
def show_of_job(session: Database, _: Caller, job_id: JobId) -> figure_files.Plots:
    """Figures of a job, including one per metric."""
    return figure_files.job_plots(session, job_id)


@router.get(
    "/jobs/{job_id}/plots/{file:path}", response_class=Response, responses=FILES, summary="Download a figure of a job"
)
async def draw_of_job(
    request: Request, _: PassingCaller, job_id: PassingJobId, file: str, query: Annotated[JobPlotQuery, Query()]
) -> Response:
    """A figure as `NAME.svg` or `NAME.png`. 409, with the reason, if it cannot be drawn."""
    name, options = figure_files.parse_file_name(file, query.theme, query.width)
    is_log, smooth = query.log, query.smooth
    return _answer(
        await draw_in_queue(request, lambda: figure_files.job_plot(job_id, name, options, is_log=is_log, smooth=smooth))
    )


def _answer(figure: figure_files.FigureFile) -> Response:
    disposition = f'inline; filename="{figure.file_name}"'
    headers = {
        "Content-Disposition": disposition,
        "Content-Security-Policy": FIGURE_POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(figure.body, media_type=figure.media_type, headers=headers)
