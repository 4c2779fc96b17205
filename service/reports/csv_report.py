"""The CSV report: a row for each task and optimizer, in full precision (RFC 4180)."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any

from service.comparisons.answers import ComparisonAnswer, GroupView, PairView, TaskAnswer
from service.reports.lookup import chosen_params

COLUMNS = (
    "task",
    "optimizer",
    "parameters",
    "n",
    "mean",
    "sd",
    "interval_low",
    "interval_high",
    "best",
    "diverged",
    "difference_to_best",
    "difference_low",
    "difference_high",
    "p_adjusted",
    "train_seconds",
    "ms_per_step",
    "peak_bytes",
    "steps_to_target",
    "seconds_to_target",
    "jobs",
)
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def text(answer: ComparisonAnswer) -> str:
    """Render the file."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for task in answer.tasks:
        for row in _rows(task):
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return file.getvalue()


def _rows(task: TaskAnswer) -> Iterator[dict[str, Any]]:
    costs = {cost.label: cost for cost in task.cost}
    for group in task.groups:
        cost = costs.get(group.label)
        low, high = group.interval or (None, None)
        yield {
            "task": task.label,
            "optimizer": group.label,
            "parameters": json.dumps(chosen_params(task, group), ensure_ascii=False),
            "n": group.n,
            "mean": group.mean,
            "sd": group.sd,
            "interval_low": low,
            "interval_high": high,
            "best": group.best,
            "diverged": group.diverged,
            **_difference_to_best(task, group),
            "train_seconds": cost and cost.train_seconds,
            "ms_per_step": cost and cost.milliseconds_per_step,
            "peak_bytes": cost and cost.peak_bytes,
            "steps_to_target": group.steps_to_target,
            "seconds_to_target": group.seconds_to_target,
            "jobs": " ".join(map(str, group.jobs)),
        }


def _difference_to_best(task: TaskAnswer, group: GroupView) -> dict[str, float | None]:
    """Mean paired difference of the group minus the group with the best mean; empty for the best group."""
    pair = next((pair for pair in task.pairs if {pair.a, pair.b} == {group.label, task.groups[0].label}), None)
    if pair is None or group is task.groups[0]:
        return {}
    difference, low, high = _seen_from(pair, group.label)
    return {
        "difference_to_best": difference,
        "difference_low": low,
        "difference_high": high,
        "p_adjusted": pair.p_adjusted,
    }


def _seen_from(pair: PairView, label: str) -> tuple[float | None, float | None, float | None]:
    """The difference of a label minus the other, and its interval."""
    low, high = pair.interval or (None, None)
    if pair.a == label:
        return pair.difference, low, high
    # + 0.0: no "-0.0"
    difference, low, high = (None if value is None else -value + 0.0 for value in (pair.difference, low, high))
    return difference, high, low


def _cell(value: Any) -> Any:
    """Prefix text that looks like a formula with an apostrophe; values that are not finite are empty."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    if isinstance(value, str) and unicodedata.normalize("NFKC", value.lstrip(" "))[:1] in FORMULA_SIGNS:
        return f"'{value}"
    return value
