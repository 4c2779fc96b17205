"""Single figures: those of a comparison's page, and curves of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from service.comparisons.answers import ComparisonAnswer, TaskAnswer
from service.comparisons.styles import LookView
from service.errors import Conflict
from service.metrics.read import Curve
from service.reports import plot_names
from service.reports.figures import across, canvas, costs, run, scores, training, tuning
from service.reports.figures.canvas import Lettering, Picture
from service.reports.figures.sheets import PlainLettering, Sheet, SheetStudy, png, svg
from service.reports.figures.study import Study
from service.reports.palette import Look
from service.reports.plot_names import Wish
from service.reports.traces import RunsOf, runs_of, watched_metric
from service.specs.catalog.optimizers import BLUE, GREY, OPTIMIZERS

Draw = Callable[[Study, TaskAnswer, Mapping[str, RunsOf]], Picture]
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
    answer: ComparisonAnswer, task: TaskAnswer, curves: Mapping[UUID, Mapping[str, Curve]], name: str, wish: Wish
) -> bytes:
    """A figure of `plot_names.of_task`. Raises Conflict, with the reason, where it cannot be drawn."""
    with canvas.settings(dark=wish.theme == "dark"):
        study = SheetStudy(answer, curves, wish.ending)
        if name in TASK:
            return _file(TASK[name](study, task, runs_of(task, curves)), study.lettering, wish)
        view = task.tuning[int(name.removeprefix("tried-")) - 1]
        picture = tuning.two_parameters(study, task, view, KEY)
        assert picture is not None
        return _file(picture, study.lettering, wish)


def of_all_tasks(answer: ComparisonAnswer, name: str, wish: Wish) -> bytes:
    """A figure of `plot_names.ACROSS`. Raises Conflict, with the reason, where it cannot be drawn."""
    found = answer.across
    if found is None:
        why = "there is only one task" if len(answer.tasks) == 1 else "available once all planned runs have ended"
        raise Conflict(f"{plot_names.ACROSS[name]}: {why}")
    with canvas.settings(dark=wish.theme == "dark"):
        study = SheetStudy(answer, {}, wish.ending)
        if name == "iqm":
            picture = across.interquartile_means(study, found, KEY, answer.plan.metric)
        else:
            draw = {"ranks": across.ranks, "improvements": across.improvements, "profiles": across.profiles}[name]
            picture = draw(study, found, KEY)
        return _file(picture, study.lettering, wish)


def of_job(optimizer: str, curves: Mapping[str, Curve], name: str, wish: Wish, *, is_log: bool, smooth: float) -> bytes:
    """A figure of `plot_names.of_job`. Raises Conflict, with the reason, where it cannot be drawn."""
    there = plot_names.metrics_of(name, curves.keys())
    panels = [[one] for one in there] if name == "diagnostics" else [there]
    lettering = (Lettering if wish.ending == "svg" else PlainLettering)(there)
    style: dict[str, Any] = {"is_log": is_log, "smooth": smooth}
    with canvas.settings(dark=wish.theme == "dark"):
        title = plot_names.of_job(curves.keys())[name]
        return _file(run.curves(title, panels, curves, _looks(optimizer), lettering, **style), lettering, wish)


def _looks(optimizer: str) -> list[Look]:
    """The optimizer's colour for the first metric of a panel, and another one for a second."""
    own = OPTIMIZERS[optimizer].colour if optimizer in OPTIMIZERS else BLUE
    other = GREY if own != GREY else BLUE
    return [Look(0, LookView(colour=own, dash=0, marker=0)), Look(1, LookView(colour=other, dash=1, marker=1))]


def _file(picture: Picture, lettering: Lettering, wish: Wish) -> bytes:
    if not isinstance(picture, Sheet):
        raise Conflict(f"{picture.title}: {picture.why}")
    return svg(picture, lettering) if wish.ending == "svg" else png(picture, wish.width_pixels)
