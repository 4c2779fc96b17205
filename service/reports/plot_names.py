"""Names of the figures that can be had by themselves, and as what; no drawing, so that listing them costs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from service.comparisons.answers import TaskAnswer
from service.specs.training import DIAGNOSTICS

Ending = Literal["svg", "png"]
Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class Wish:
    """What kind of file."""

    ending: Ending
    theme: Theme = "light"
    width_pixels: int = 1360
    """Of a PNG."""


TASK: Mapping[str, str] = {
    "curves": "Validation metric against steps",
    "time": "Validation metric against time",
    "endpoints": "Endpoint of every run",
    "differences": "Differences between optimizers",
    "loss": "Training loss against steps",
    "condensation": "Condensation against steps",
    "learning_rates": "Sensitivity to the learning rate",
    "expected_best": "Expected best score by number of trials",
    "cost": "Time per step and peak memory",
    "time_to_target": "Time to target",
}
"""Of a task of a comparison."""

ACROSS: Mapping[str, str] = {
    "ranks": "Mean ranks over all tasks",
    "iqm": "Interquartile means over all tasks",
    "improvements": "Probability of improvement over all tasks",
    "profiles": "Performance profiles over all tasks",
}
"""Of all tasks together."""

JOB: Mapping[str, tuple[str, ...]] = {
    "loss": ("val_loss", "train_loss"),
    "accuracy": ("val_accuracy", "train_accuracy"),
    "lr": ("lr",),
    "diagnostics": DIAGNOSTICS,
}
"""Of a job: the metrics of each figure, as far as they were measured."""
JOB_TITLES: Mapping[str, str] = {
    "loss": "Loss against steps",
    "accuracy": "Accuracy against steps",
    "lr": "Learning rate against steps",
    "diagnostics": "Diagnostics of neurons and weights",
}


def of_task(task: TaskAnswer) -> dict[str, str]:
    """Name -> title; of each optimizer with two tuned parameters, also what it was tried at."""
    tried = {
        f"tried-{place}": f"Trials of {view.label}"
        for place, view in enumerate(task.tuning, 1)
        if len({name for trial in view.trials for name in trial.params}) > 1
    }
    return {**TASK, **tried}


def of_job(measured: Collection[str]) -> dict[str, str]:
    """Name -> title; every metric is a figure, too."""
    made = {name: JOB_TITLES[name] for name, metrics in JOB.items() if any(one in measured for one in metrics)}
    return made | {name: f"{name} against steps" for name in sorted(measured) if name not in made}


def metrics_of(name: str, measured: Collection[str]) -> list[str]:
    """What a figure of `of_job` shows, of what was measured."""
    return [one for one in JOB.get(name, ()) if one in measured] or [name]
