"""Single figures as files: those of a comparison's page, and curves of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from service.comparisons.answers import ComparisonAnswer, TaskAnswer
from service.comparisons.styles import LookView
from service.errors import Conflict
from service.metrics.read import Curve
from service.reports import plot_names
from service.reports.figures import across, canvas, costs, run, scores, training, tuning
from service.reports.figures.canvas import GlyphSubstitution, Picture
from service.reports.figures.sheets import LossySubstitution, Sheet, SheetStudy, png, svg
from service.reports.figures.study import Study
from service.reports.palette import PlotStyle
from service.reports.plot_names import FileOptions
from service.reports.traces import GroupCurves, curves_by_group, watched_metric
from service.specs.catalog.optimizers import BLUE, GREY, OPTIMIZERS

Draw = Callable[[Study, TaskAnswer, Mapping[str, GroupCurves]], Picture]
KEY = "plot"


TASK: Mapping[str, Draw] = {
    "curves": lambda study, task, runs: training.curves(study, task, KEY, watched_metric(task, runs), "steps", runs),
    "time": lambda study, task, runs: training.curves(
        study, task, KEY, watched_metric(task, runs), "wall_seconds", runs
    ),
    "endpoints": lambda study, task, runs: scores.endpoints(study, task, KEY, runs),
    "differences": lambda study, task, _: scores.differences(study, task, KEY),
    "loss": lambda study, task, runs: training.curves(study, task, KEY, "train_loss", "steps", runs),
    "condensation": lambda study, task, runs: training.curves(study, task, KEY, "weight_correlation", "steps", runs),
    "learning_rates": lambda study, task, _: tuning.learning_rates(study, task, KEY),
    "expected_best": lambda study, task, _: tuning.expected_best(study, task, KEY),
    "cost": lambda study, task, _: costs.costs(study, task, KEY),
    "time_to_target": lambda study, task, runs: scores.times_to_target(study, task, KEY, runs),
}


def of_task(
    answer: ComparisonAnswer,
    task: TaskAnswer,
    curves: Mapping[UUID, Mapping[str, Curve]],
    name: str,
    options: FileOptions,
) -> bytes:
    """Render a figure of `plot_names.of_task`. Raises Conflict, with the reason, if it cannot be drawn."""
    with canvas.settings(dark=options.theme == "dark"):
        study = SheetStudy(answer, curves, options.format)
        if name in TASK:
            return _file(TASK[name](study, task, curves_by_group(task, curves)), study.glyphs, options)
        view = task.tuning[int(name.removeprefix("tried-")) - 1]
        picture = tuning.two_parameters(study, view, KEY)
        assert picture is not None
        return _file(picture, study.glyphs, options)


def of_all_tasks(answer: ComparisonAnswer, name: str, options: FileOptions) -> bytes:
    """Render a figure of `plot_names.ACROSS`. Raises Conflict, with the reason, if it cannot be drawn."""
    if answer.across is None:
        reason = "there is only one task" if len(answer.tasks) == 1 else "available once all planned runs have ended"
        raise Conflict(f"{plot_names.ACROSS[name]}: {reason}")
    with canvas.settings(dark=options.theme == "dark"):
        study = SheetStudy(answer, {}, options.format)
        if name == "iqm":
            picture = across.interquartile_means(study, answer.across, KEY, answer.plan.metric)
        else:
            draw = {"ranks": across.ranks, "improvements": across.improvements, "profiles": across.profiles}[name]
            picture = draw(study, answer.across, KEY)
        return _file(picture, study.glyphs, options)


def of_job(
    optimizer: str,
    curves: Mapping[str, Curve],
    name: str,
    options: FileOptions,
    *,
    is_log: bool,
    smooth: float,
) -> bytes:
    """Render a figure of `plot_names.of_job`. Raises Conflict, with the reason, if it cannot be drawn."""
    metrics = plot_names.metrics_of(name, curves.keys())
    panels = [[metric] for metric in metrics] if name == "diagnostics" else [metrics]
    glyphs = (GlyphSubstitution if options.format == "svg" else LossySubstitution)(metrics)
    with canvas.settings(dark=options.theme == "dark"):
        title = plot_names.of_job(curves.keys())[name]
        styles = _styles(optimizer)
        picture = run.curves(title, panels, curves, styles, glyphs, is_log=is_log, smooth=smooth)
        return _file(picture, glyphs, options)


def _styles(optimizer: str) -> list[PlotStyle]:
    """The optimizer's color for the first metric of a panel, and another color for the second."""
    first = OPTIMIZERS[optimizer].colour if optimizer in OPTIMIZERS else BLUE
    second = GREY if first != GREY else BLUE
    views = (LookView(colour=first, dash=0, marker=0), LookView(colour=second, dash=1, marker=1))
    return [PlotStyle(position, view) for position, view in enumerate(views)]


def _file(picture: Picture, glyphs: GlyphSubstitution, options: FileOptions) -> bytes:
    if not isinstance(picture, Sheet):
        raise Conflict(f"{picture.title}: {picture.reason}")
    return svg(picture, glyphs) if options.format == "svg" else png(picture, options.width_pixels)
