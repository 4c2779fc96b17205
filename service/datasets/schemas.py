"""Descriptions of data sets: the file beside an uploaded one, and response bodies.

Free of numpy, because the SDK shares it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.specs.base import Kind
from service.specs.formats import FileFormat
from service.specs.text import counted

NOTES = "How the file was read where there is more than one way, in sentences, such as the scale of its pixels."


class Description(BaseModel):
    """`dataset.json` of an uploaded data set; other files of its folder contain the records."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(1, description="Version of this file's format.")
    name: str = Field(description="Name used in jobs, such as images/flowers.")
    kind: Kind
    owner: str
    created_at: datetime
    file_format: FileFormat
    size_bytes: int = Field(description="Size of the uploaded file.")
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    content_sha256: str = Field(description="SHA-256 of all records, labels, class names and the split.")
    classes: list[str] = Field(description="Class names, in order of their indices.")
    shape: list[int] = Field(description="Channels, height and width of an image; columns of a table; empty for texts.")
    columns: list[str] = Field(description="Column names of a table; empty if it has none.")
    train_per_class: list[int] = Field(description="Training records per class, including the validation part.")
    test_per_class: list[int] = Field(description="Test records of each class.")
    notes: list[str] = Field(default_factory=list, description=NOTES)
    warnings: list[str] = Field(description="Properties that are allowed but may be unintended, in sentences.")

    @property
    def train_records(self) -> int:
        """Records of the training part, before validation is split off."""
        return sum(self.train_per_class)

    @property
    def title(self) -> str:
        """A short description."""
        records = self.train_records + sum(self.test_per_class)
        if self.kind == "image":
            channels, height, width = self.shape
            contents = f"{counted(records, 'image')}, {height} x {width} {'grayscale' if channels == 1 else 'color'}"
        elif self.kind == "text":
            contents = counted(records, "text")
        else:
            contents = f"{counted(records, 'row')} of {counted(self.shape[0], 'number')}"
        return f"{contents}, {len(self.classes):,} classes, uploaded by {self.owner}"


class PreviewRecord(BaseModel):
    """A training record: one of `image`, `text` and `values` is set."""

    model_config = ConfigDict(frozen=True)

    label: str
    image: str | None = Field(description="PNG as a data URL, at most 64 pixels wide and high.")
    text: str | None = Field(description="The first 200 characters.")
    values: list[float] | None = Field(description="The first 32 numbers of a row.")


class DatasetView(BaseModel):
    """A built-in or uploaded data set."""

    name: str
    title: str
    kind: Kind
    classes: int
    records: int = Field(description="Training records, including the validation part.")
    shape: list[int] | None = Field(description="Shape of a record; null if unknown.")
    present: bool = Field(description="Whether its files are in the data folder.")
    fetch: str | None = Field(description="Command that downloads it; null if present.")
    own: bool = Field(description="Whether it was uploaded by a user.")
    owner: str | None
    created_at: datetime | None
    size_bytes: int | None = Field(description="Size of the uploaded file; null for built-in data sets.")


class DatasetList(BaseModel):
    """All data sets: built-in ones first, then uploaded ones by name."""

    data: list[DatasetView]


class DatasetDetail(DatasetView):
    """An uploaded data set, with some of its records."""

    file_format: FileFormat
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    class_names: list[str]
    columns: list[str] = Field(description="Column names of a table; empty if it has none.")
    train_per_class: list[int]
    test_per_class: list[int] = Field(description="Test records of each class.")
    notes: list[str] = Field(description=NOTES)
    warnings: list[str] = Field(description="Properties that are allowed but may be unintended, in sentences.")
    preview: list[PreviewRecord]
