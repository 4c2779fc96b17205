"""What is known of a data set: the file that lies beside somebody's own one, and the API's answers.

Free of numpy, because the SDK shares it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.specs.base import Kind
from service.specs.formats import FileFormat


class Description(BaseModel):
    """`dataset.json` of somebody's own data set; other files of the same folder hold the records."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(1, description="Of this file's format.")
    name: str = Field(description="As a job says it, such as images/flowers.")
    kind: Kind
    owner: str
    created_at: datetime
    file_format: FileFormat
    size_bytes: int = Field(description="Of the uploaded file.")
    sha256: str = Field(description="Of the uploaded file.")
    content_sha256: str = Field(description="Of all records, labels, class names and the split.")
    classes: list[str] = Field(description="Names, in the order of their numbers.")
    shape: list[int] = Field(description="Channels, height and width of an image; columns of a table; empty for texts.")
    columns: list[str] = Field(description="Names of a table's columns, where it has any.")
    train_per_class: list[int] = Field(description="Records of each class, before validation is split off.")
    test_per_class: list[int]
    warnings: list[str] = Field(description="What is allowed and may surprise, in sentences.")

    @property
    def train_records(self) -> int:
        """Records of the training part, before validation is split off."""
        return sum(self.train_per_class)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        records = f"{self.train_records + sum(self.test_per_class):,}"
        if self.kind == "image":
            channels, height, width = self.shape
            what = f"{records} images, {height} x {width} {'grey' if channels == 1 else 'colour'}"
        elif self.kind == "text":
            what = f"{records} texts"
        else:
            what = f"{records} rows of " + ("1 number" if self.shape[0] == 1 else f"{self.shape[0]} numbers")
        return f"{what}, {len(self.classes)} classes, of {self.owner}"


class PreviewRecord(BaseModel):
    """One record of the training part; one of `image`, `text` and `values` is there."""

    model_config = ConfigDict(frozen=True)

    label: str
    image: str | None = Field(description="A PNG as a data URL, at most 64 pixels wide.")
    text: str | None = Field(description="At most 200 characters.")
    values: list[float] | None = Field(description="The first 32 numbers of a row.")


class DatasetView(BaseModel):
    """A data set of the list: built-in, or somebody's own."""

    name: str
    title: str
    kind: Kind
    classes: int
    records: int = Field(description="For training, before validation is split off.")
    shape: list[int] | None = Field(description="Of one record, where it is known.")
    present: bool = Field(description="Whether its files lie in the data folder.")
    fetch: str | None = Field(description="The command that downloads it, where it is not present.")
    own: bool = Field(description="Whether somebody registered it.")
    owner: str | None
    created_at: datetime | None
    size_bytes: int | None = Field(description="Of the uploaded file.")


class DatasetList(BaseModel):
    """All data sets: the built-in ones first, then those that were registered, by name."""

    data: list[DatasetView]


class DatasetDetail(DatasetView):
    """All that is known of one that somebody registered."""

    file_format: FileFormat
    sha256: str = Field(description="Of the uploaded file.")
    class_names: list[str]
    columns: list[str] = Field(description="Names of a table's columns, where it has any.")
    train_per_class: list[int]
    test_per_class: list[int]
    warnings: list[str]
    preview: list[PreviewRecord]
