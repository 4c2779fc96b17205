"""Figures of comparisons and jobs as files; matplotlib is loaded with the first figure."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from uuid import UUID

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.comparisons import lifecycle
from service.comparisons.answers import ComparisonAnswer, TaskAnswer
from service.errors import Invalid, NotFound
from service.jobs import lookup
from service.metrics import read
from service.reports import plot_names, rendering
from service.reports.plot_names import FileOptions, ImageFormat, Theme
from service.specs.bodies import Output
from service.storage.database import transaction
from service.storage.tables import MetricChunk, MetricName

MEDIA_TYPES: Mapping[ImageFormat, str] = {"svg": "image/svg+xml", "png": "image/png"}


class PlotName(Output):
    """A figure, available as `NAME.svg` and `NAME.png` under this URL."""

    name: str
    title: str
    task: str | None = Field(description="Label of its task; null for figures of all tasks and of jobs.")


class Plots(Output):
    """The available figures. A figure whose data is incomplete returns 409."""

    plots: list[PlotName]


class FigureFile(Output):
    """A figure rendered as a file."""

    body: bytes
    media_type: str
    file_name: str


def parse_file_name(file: str, theme: Theme, width_pixels: int) -> tuple[str, FileOptions]:
    """Split `NAME.svg` into the name of the figure and the options of its file. Raises NotFound."""
    name, _, extension = file.rpartition(".")
    for known in MEDIA_TYPES:
        if name and extension == known:
            return name, FileOptions(known, theme, width_pixels)
    raise NotFound(f"unknown plot '{file[:200]}'; choose a name that ends in .svg or .png")


def _drawing() -> ModuleType:
    from service.reports import plots  # noqa: PLC0415  # matplotlib: 35 MB and 0.6 s, only needed to draw

    return plots


def _check_name(name: str, known: Mapping[str, str]) -> None:
    if name not in known:
        choices = f"choose one of {', '.join(known)}" if known else "none is available yet"
        raise NotFound(f"unknown plot '{name[:200]}'; {choices}")


# --- of a comparison -------------------------------------------------------------------------------------------------


def comparison_plots(session: Session, comparison_id: UUID) -> Plots:
    """The figures of each task, then those of all tasks. Raises NotFound."""
    answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
    of_tasks = [
        PlotName(name=name, title=title, task=task.label)
        for task in answer.tasks
        for name, title in plot_names.of_task(task).items()
    ]
    across = plot_names.ACROSS if len(answer.tasks) > 1 else {}
    return Plots(plots=of_tasks + [PlotName(name=name, title=title, task=None) for name, title in across.items()])


def comparison_plot(comparison_id: UUID, name: str, task: str, options: FileOptions) -> FigureFile:
    """Draw a figure; `task` is a number from 1 or a label. No session is open while it is drawn.

    Raises:
        NotFound: unknown comparison or plot.
        Invalid: unknown task.
        Conflict: its data is missing or incomplete.
    """
    with transaction() as session:
        answer = lifecycle.answer(session, lifecycle.get(session, comparison_id))
        task_answer = None if name in plot_names.ACROSS else _task(answer, task)
        curves = {} if task_answer is None else _curves(session, answer, task_answer, name)
    file_name = f"{rendering.stem(answer)}-{name}.{options.format}"
    if task_answer is None:
        return _figure_file(_drawing().of_all_tasks(answer, name, options), options, file_name)
    return _figure_file(_drawing().of_task(answer, task_answer, curves, name, options), options, file_name)


def _curves(session: Session, answer: ComparisonAnswer, task: TaskAnswer, name: str) -> rendering.Curves:
    """The curves that a figure of a task may need. Raises NotFound for an unknown figure."""
    _check_name(name, {**plot_names.of_task(task), **plot_names.ACROSS})
    runs = [job for group in task.groups for job in group.jobs]
    return read.curves(session, runs, rendering.curve_names(answer))


def _task(answer: ComparisonAnswer, selector: str) -> TaskAnswer:
    for number, task in enumerate(answer.tasks, 1):
        if selector in (task.label, str(number)):
            return task
    labels = ", ".join(f"{number} ({task.label})" for number, task in enumerate(answer.tasks, 1))
    raise Invalid.field("task", f"unknown task; choose one of {labels}")


def _figure_file(body: bytes, options: FileOptions, file_name: str) -> FigureFile:
    return FigureFile(body=body, media_type=MEDIA_TYPES[options.format], file_name=file_name)


# --- of a job --------------------------------------------------------------------------------------------------------


def job_plots(session: Session, job_id: UUID) -> Plots:
    """The figures of the metrics recorded so far. Raises NotFound."""
    lookup.get(session, job_id)
    known = plot_names.of_job(_measured(session, job_id))
    return Plots(plots=[PlotName(name=name, title=title, task=None) for name, title in known.items()])


def _measured(session: Session, job_id: UUID) -> list[str]:
    ids = select(MetricChunk.name_id).where(MetricChunk.job_id == job_id)
    return list(session.scalars(select(MetricName.name).where(MetricName.id.in_(ids)).order_by(MetricName.name)))


def job_plot(job_id: UUID, name: str, options: FileOptions, *, is_log: bool, smooth: float) -> FigureFile:
    """Draw a figure. No session is open while it is drawn.

    Raises:
        NotFound: unknown job or plot.
        Conflict: its data is missing.
    """
    with transaction() as session:
        optimizer = lookup.get(session, job_id).optimizer
        measured = _measured(session, job_id)
        _check_name(name, plot_names.of_job(measured))
        curves = read.curves(session, [job_id], plot_names.metrics_of(name, measured)).get(job_id, {})
    body = _drawing().of_job(optimizer, curves, name, options, is_log=is_log, smooth=smooth)
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return _figure_file(body, options, f"job-{str(job_id)[-8:]}-{safe}.{options.format}")
