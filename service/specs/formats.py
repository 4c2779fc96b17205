"""File formats, in words of their own so that the command line names them without importing a schema."""

from __future__ import annotations

from typing import Literal

FileFormat = Literal["npz", "csv", "parquet", "jsonl", "zip"]
"""What can be uploaded."""

ReportFormat = Literal["html", "csv", "latex", "json"]
"""What a comparison's report can be written as."""
