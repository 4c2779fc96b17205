"""What a run of each optimizer takes: time and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from service.comparisons.answers import CostView
from service.comparisons.design.plan import Plan
from service.comparisons.design.runs import CellRun
from service.specs.training import JobStatus


def costs(plan: Plan, runs: Mapping[int, Sequence[CellRun]]) -> list[CostView]:
    """What a run of each optimizer takes, and how much more a step of it takes than the cheapest one's."""
    ended = {
        position: [run for run in of_one if run.result.status is JobStatus.SUCCEEDED]
        for position, of_one in runs.items()
    }
    per_step = {
        position: median(times)
        for position, of_one in ended.items()
        if (times := [one.train_seconds / one.steps for one in of_one if one.train_seconds is not None and one.steps])
    }
    cheapest = min(per_step.values(), default=None)
    found = []
    for position, of_one in ended.items():
        step = per_step.get(position)
        found.append(
            CostView(
                label=plan.optimizers[position].label,
                train_seconds=_median(run.train_seconds for run in of_one),
                milliseconds_per_step=None if step is None else 1000 * step,
                ratio=None if step is None or not cheapest else step / cheapest,
                peak_bytes=_median(run.memory.get("peak_bytes") for run in of_one),
                optimizer_state_bytes=_median(run.memory.get("optimizer_state_bytes") for run in of_one),
                parameters=next((run.parameters for run in of_one), None),
                shared=any(run.is_shared for run in of_one),
            )
        )
    return found


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None
