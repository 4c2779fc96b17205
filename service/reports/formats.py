"""Render a comparison as HTML, CSV, LaTeX or JSON. The HTML page needs matplotlib, which loads with the first one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from service.comparisons.answers import ComparisonAnswer
from service.metrics.read import Curve
from service.reports import latex, rows

Format = Literal["html", "csv", "latex", "json"]

Curves = Mapping[UUID, Mapping[str, Curve]]
"""Job -> metric -> its points."""

MEDIA_TYPES: Mapping[Format, str] = {
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
    "latex": "text/x-tex; charset=utf-8",
    "json": "application/json",
}
ENDINGS: Mapping[Format, str] = {"html": "html", "csv": "csv", "latex": "tex", "json": "json"}


@dataclass(frozen=True)
class Report:
    """A file, and what it is."""

    body: str
    media_type: str
    file_name: str


def render(format: Format, answer: ComparisonAnswer, curves: Curves) -> Report:
    """A comparison in one of the formats.

    Args:
        answer: of a comparison that is over, or as far as it is.
        curves: of the jobs `job_ids` under the names `curve_names`; only the page needs them. What is missing is left
            out, and the page says so.
    """
    if format == "html":
        from service.reports.page import page  # noqa: PLC0415  # matplotlib: 35 MB and 0.6 s, only for those who draw

        body = page(answer, curves)
    elif format == "csv":
        body = rows.csv_text(answer)
    elif format == "latex":
        body = latex.document_part(answer)
    else:
        body = answer.model_dump_json(indent=2)
    return Report(body, MEDIA_TYPES[format], file_name(answer, format))


def job_ids(answer: ComparisonAnswer) -> list[UUID]:
    """The reported runs: those whose curves the page shows."""
    return [job for task in answer.tasks for group in task.groups for job in group.jobs]


def curve_names(answer: ComparisonAnswer) -> list[str]:
    """The metrics that the page shows curves of; the endpoint is the last point of its own."""
    return sorted({answer.plan.metric, "val_accuracy", "val_loss", "train_loss", "weight_correlation"})


def file_name(answer: ComparisonAnswer, format: Format) -> str:
    """What a report is stored as."""
    return f"{stem(answer)}.{ENDINGS[format]}"


def stem(answer: ComparisonAnswer) -> str:
    """A name that any file system and any HTTP header takes: the comparison's, as far as it is ASCII, and its id."""
    words = re.sub(r"[^a-z0-9]+", "-", answer.name.lower()).strip("-")[:60].rstrip("-")
    return f"{words or 'comparison'}-{str(answer.id)[-8:]}"
