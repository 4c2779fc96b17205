"""Descriptions of data sets: the file stored with each uploaded one, and the API's responses.

Free of numpy, because the SDK shares it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.specs.base import Kind

FileFormat = Literal["npz", "csv", "parquet", "jsonl", "zip"]
"""Formats of uploaded files."""


class Description(BaseModel):
    """`dataset.json` of an uploaded data set; other files of the same folder hold the records."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(1, description="Version of this file's format.")
    name: str = Field(description="Name to use in jobs, after the kind, such as images/flowers.")
    kind: Kind
    owner: str
    created_at: datetime
    file_format: FileFormat
    size_bytes: int = Field(description="Size of the uploaded file.")
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    content_sha256: str = Field(description="SHA-256 of all records, labels, class names and the split.")
    classes: list[str] = Field(description="Class names, in the order of the label numbers.")
    shape: list[int] = Field(description="Channels, height and width of an image; columns of a table; empty for texts.")
    columns: list[str] = Field(description="Names of a table's columns; empty if the file has none.")
    train_per_class: list[int] = Field(description="Training records of each class, before validation is split off.")
    test_per_class: list[int] = Field(description="Test records of each class.")
    warnings: list[str] = Field(description="Possible mistakes in the accepted records, one sentence each.")

    @property
    def train_records(self) -> int:
        """Records of the training part, before validation is split off."""
        return sum(self.train_per_class)

    @property
    def title(self) -> str:
        """Number of records, their shape, the number of classes, and the owner."""
        records = f"{self.train_records + sum(self.test_per_class):,}"
        if self.kind == "image":
            channels, height, width = self.shape
            what = f"{records} images, {height} x {width} {'grayscale' if channels == 1 else 'color'}"
        elif self.kind == "text":
            what = f"{records} texts"
        else:
            what = f"{records} rows of " + ("1 number" if self.shape[0] == 1 else f"{self.shape[0]} numbers")
        return f"{what}, {len(self.classes)} classes, uploaded by {self.owner}"


class PreviewRecord(BaseModel):
    """A record of the training part; exactly one of `image`, `text` and `values` is set."""

    model_config = ConfigDict(frozen=True)

    label: str
    image: str | None = Field(description="PNG as a data URL, at most 64 pixels wide and high.")
    text: str | None = Field(description="The first 200 characters.")
    values: list[float] | None = Field(description="The first 32 numbers of a row.")


class DatasetView(BaseModel):
    """A data set, built-in or uploaded by a user."""

    name: str
    title: str
    kind: Kind
    classes: int
    records: int = Field(description="Training records, before validation is split off.")
    shape: list[int] | None = Field(description="Shape of one record; null if unknown.")
    present: bool = Field(description="Whether its files are in the data folder.")
    fetch: str | None = Field(description="Command that downloads it; null if it is present.")
    own: bool = Field(description="Whether a user uploaded it.")
    owner: str | None
    created_at: datetime | None
    size_bytes: int | None = Field(description="Size of the uploaded file.")


class DatasetList(BaseModel):
    """All data sets: the built-in ones first, then the uploaded ones by name."""

    data: list[DatasetView]


class DatasetDetail(DatasetView):
    """An uploaded data set, with its classes and a preview."""

    file_format: FileFormat
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    class_names: list[str]
    columns: list[str] = Field(description="Names of a table's columns; empty if the file has none.")
    train_per_class: list[int]
    test_per_class: list[int] = Field(description="Test records of each class.")
    warnings: list[str]
    preview: list[PreviewRecord]
