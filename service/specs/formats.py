"""File formats, in a module of their own so that the command line does not import the schemas."""

from __future__ import annotations

from typing import Literal

FileFormat = Literal["npz", "csv", "parquet", "jsonl", "zip"]
"""Formats of uploaded data sets."""

ReportFormat = Literal["html", "csv", "latex", "json"]
"""Formats of a comparison's report."""
