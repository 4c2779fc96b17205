"""The golden files and the functions that make their content."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.comparisons.answers import ComparisonAnswer
from service.reports.rendering import render
from service.specs.formats import ReportFormat
from tests.golden.answers import comparisons, stored, synthetic

FOLDER = Path(__file__).parent
WIDTH = 120
OF_OWNERS = {"note", "archived_at"}
"""Fields of an answer that nothing is computed from."""


@cache
def _answer(name: str) -> ComparisonAnswer:
    return synthetic.answer_of(comparisons.SCENARIOS[name])


def _json(value: Any) -> str:
    return _indented(_rounded(value)) + "\n"


def _indented(value: Any, depth: int = 0) -> str:
    """JSON in which a value that fits into a line is on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + depth <= WIDTH or not isinstance(value, dict | list):
        return line
    inner = (
        [f"{json.dumps(key, ensure_ascii=False)}: {_indented(part, depth + 1)}" for key, part in value.items()]
        if isinstance(value, dict)
        else [_indented(part, depth + 1) for part in value]
    )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    margin = "\n" + " " * (depth + 1)
    return f"{opening}{margin}{f',{margin}'.join(inner)}{margin[:-1]}{closing}"


def _rounded(value: Any) -> Any:
    """Round numbers to 12 significant digits: further digits depend on the order in which a CPU adds."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return 0.0 if abs(value) < 1e-15 else float(f"{value:.12g}")
    return value


def _schedules() -> str:
    """For each comparison, the number of cells that its schedule requests, and a digest of them in order."""
    schedules = {}
    for name, scenario in comparisons.SCENARIOS.items():
        cells = synthetic.schedule_of(scenario)
        schedules[name] = {"cells": len(cells), "sha256": sha256("\n".join(cells).encode()).hexdigest()}
    return _json(schedules)


def _report(name: str, format: ReportFormat) -> str:
    return render(format, _answer(name), {}).body


MAKERS: dict[str, Callable[[], str]] = {
    **{
        f"comparisons/{name}.json": lambda name=name: _json(_answer(name).model_dump(mode="json", exclude=OF_OWNERS))
        for name in comparisons.SCENARIOS
    },
    **{f"compare/{name}.json": lambda query=query: _json(query()) for name, query in stored.QUERIES.items()},
    "comparisons/schedules.json": _schedules,
    "reports/study-first-look.csv": partial(_report, "study-first-look", "csv"),
    "reports/study-first-look.tex": partial(_report, "study-first-look", "latex"),
    "reports/failed-incomplete.csv": partial(_report, "failed-incomplete", "csv"),
    "reports/looks-decided-later.tex": partial(_report, "looks-decided-later", "latex"),
}
"""Path below `FOLDER` -> function that makes the content."""


def stored_names() -> set[str]:
    """Paths of the stored files, below `FOLDER`."""
    return {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*.*") if path.suffix != ".pyc"}
