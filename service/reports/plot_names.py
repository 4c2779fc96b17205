"""Names and titles of the figures available as files; free of matplotlib, so that listing them is cheap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from service.comparisons.answers import TaskAnswer
from service.specs.training import DIAGNOSTICS

ImageFormat = Literal["svg", "png"]
Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class FileOptions:
    """Options of the file."""

    format: ImageFormat
    theme: Theme = "light"
    width_pixels: int = 1360
    """Width of a PNG."""


TASK: Mapping[str, str] = {
    "curves": "Validation metric by step",
    "time": "Validation metric over time",
    "endpoints": "Endpoint of every run",
    "differences": "Differences between optimizers",
    "loss": "Training loss by step",
    "condensation": "Condensation by step",
    "learning_rates": "Sensitivity to the learning rate",
    "expected_best": "Expected best score by number of trials",
    "cost": "Time per step and peak memory",
    "time_to_target": "Time to target",
}
"""Name -> title of the figures of a task."""

ACROSS: Mapping[str, str] = {
    "ranks": "Mean ranks over all tasks",
    "iqm": "Interquartile means over all tasks",
    "improvements": "Probability of improvement over all tasks",
    "profiles": "Performance profiles over all tasks",
}
"""Name -> title of the figures of all tasks together."""

JOB: Mapping[str, tuple[str, ...]] = {
    "loss": ("val_loss", "train_loss"),
    "accuracy": ("val_accuracy", "train_accuracy"),
    "lr": ("lr",),
    "diagnostics": DIAGNOSTICS,
}
"""Name -> metrics of the figures of a job; a figure shows those that were recorded."""
JOB_TITLES: Mapping[str, str] = {
    "loss": "Loss by step",
    "accuracy": "Accuracy by step",
    "lr": "Learning rate by step",
    "diagnostics": "Neuron and weight diagnostics",
}


def of_task(task: TaskAnswer) -> dict[str, str]:
    """Name -> title; with a figure of the trials of each optimizer with two tuned parameters."""
    tried = {
        f"tried-{place}": f"Trials of {view.label}"
        for place, view in enumerate(task.tuning, 1)
        if len({name for trial in view.trials for name in trial.params}) > 1
    }
    return {**TASK, **tried}


def of_job(measured: Collection[str]) -> dict[str, str]:
    """Name -> title; each remaining metric has a figure of its own."""
    titles = {name: JOB_TITLES[name] for name, metrics in JOB.items() if any(metric in measured for metric in metrics)}
    return titles | {name: f"{name} by step" for name in sorted(measured) if name not in titles}


def metrics_of(name: str, measured: Collection[str]) -> list[str]:
    """The recorded metrics that a figure of `of_job` shows."""
    return [metric for metric in JOB.get(name, ()) if metric in measured] or [name]
