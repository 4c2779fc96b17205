"""Render a comparison as HTML, CSV, LaTeX or JSON. The HTML page needs matplotlib, which loads with the first one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.comparisons.answers import ComparisonAnswer
from service.metrics.read import Curve
from service.reports import csv_report, latex
from service.reports.sources import UploadedFile
from service.specs.formats import ReportFormat

Curves = Mapping[UUID, Mapping[str, Curve]]
"""Job -> metric -> its points."""

MEDIA_TYPES: Mapping[ReportFormat, str] = {
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
    "latex": "text/x-tex; charset=utf-8",
    "json": "application/json",
}
ENDINGS: Mapping[ReportFormat, str] = {"html": "html", "csv": "csv", "latex": "tex", "json": "json"}


@dataclass(frozen=True)
class Report:
    """A rendered report with its media type and file name."""

    body: str
    media_type: str
    file_name: str


def render(
    format: ReportFormat, answer: ComparisonAnswer, curves: Curves, files: Sequence[UploadedFile] = ()
) -> Report:
    """Render a comparison in a format.

    Args:
        answer: a finished or running comparison.
        curves: metrics `curve_names` of the jobs `job_ids`; used by HTML only. The page names the figures whose
            curves are missing.
        files: the uploaded code that its runs use, for the appendix of HTML and LaTeX.
    """
    if format == "html":
        from service.reports.page import page  # noqa: PLC0415  # matplotlib: 35 MB and 0.6 s, only needed to draw

        body = page(answer, curves, files)
    elif format == "csv":
        body = csv_report.text(answer)
    elif format == "latex":
        body = latex.document_part(answer, files)
    else:
        body = answer.model_dump_json(indent=2)
    return Report(body, MEDIA_TYPES[format], file_name(answer, format))


def job_ids(answer: ComparisonAnswer) -> list[UUID]:
    """The final runs, whose curves the page shows."""
    return [job for task in answer.tasks for group in task.groups for job in group.jobs]


def curve_names(answer: ComparisonAnswer) -> list[str]:
    """The metrics that the page shows curves of; the endpoint is the last point of its own."""
    return sorted({answer.plan.metric, "val_accuracy", "val_loss", "train_loss", "weight_correlation"})


def file_name(answer: ComparisonAnswer, format: ReportFormat) -> str:
    """File name of a report."""
    return f"{stem(answer)}.{ENDINGS[format]}"


def stem(answer: ComparisonAnswer) -> str:
    """ASCII slug of the comparison's name and the end of its id; valid in file systems and HTTP headers."""
    words = re.sub(r"[^a-z0-9]+", "-", answer.name.lower()).strip("-")[:60].rstrip("-")
    return f"{words or 'comparison'}-{str(answer.id)[-8:]}"
