"""Time and memory of a run of each optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from service.comparisons.analysis.runs import CellRun
from service.comparisons.answers import CostView
from service.specs.states import JobStatus


def costs(runs: Mapping[str, Sequence[CellRun]]) -> list[CostView]:
    """Medians over the finished runs of each label, and the time of a step relative to the cheapest optimizer's."""
    ended = {
        label: [run for run in of_label if run.result.status is JobStatus.SUCCEEDED] for label, of_label in runs.items()
    }
    per_step = {
        label: median(times)
        for label, of_label in ended.items()
        if (times := [run.train_seconds / run.steps for run in of_label if run.train_seconds is not None and run.steps])
    }
    cheapest = min(per_step.values(), default=None)
    return [_cost(label, of_label, per_step.get(label), cheapest) for label, of_label in ended.items()]


def _cost(label: str, runs: Sequence[CellRun], step: float | None, cheapest: float | None) -> CostView:
    return CostView(
        label=label,
        train_seconds=_median(run.train_seconds for run in runs),
        milliseconds_per_step=None if step is None else 1000 * step,
        ratio=None if step is None or not cheapest else step / cheapest,
        peak_bytes=_median(run.memory.get("peak_bytes") for run in runs),
        optimizer_state_bytes=_median(run.memory.get("optimizer_state_bytes") for run in runs),
        parameters=next((run.parameters for run in runs), None),
        shared=any(run.is_shared for run in runs),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
