"""Request and response bodies that several rooms share. Response fields have no defaults: no answer omits one."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.specs.patterns import LABEL, TAG_KEY

Label = Annotated[str, Field(pattern=LABEL)]


TagKey = Annotated[str, Field(pattern=TAG_KEY)]


PROBLEM_EXAMPLE: JsonDict = {
    "type": "https://kotrain.invalid/problems/invalid",
    "title": "The request is not valid",
    "status": 422,
    "detail": "/optimizer/params/lr: input should be greater than 0",
    "instance": "/v1/jobs",
    "errors": [{"pointer": "/optimizer/params/lr", "detail": "input should be greater than 0"}],
}


class Output(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(from_attributes=True, defer_build=True)


Item = TypeVar("Item")


class Page(Output, Generic[Item]):
    """Some of a list, newest first; `next` goes into `after` to read on."""

    data: list[Item]
    has_more: bool
    next: str | None


class CatalogEntry(Output):
    """Something that a job can name."""

    name: str
    title: str
    params: dict[str, Any] = Field(description="JSON Schema of the parameters.")


class DatasetEntry(CatalogEntry):
    """A data set that a job can name."""

    kind: str
    classes: int
    present: bool = Field(description="Whether its files lie in the data folder.")
    fetch: str | None = Field(description="The command that downloads it, where it is not present.")


class ModelEntry(CatalogEntry):
    """A model that a job can name."""

    reads: str = Field(description="The kind of data that it is for: image, text or table.")
    also_reads: list[str] = Field(description="Other kinds that it reads as well.")


class OptimizerEntry(CatalogEntry):
    """An optimizer that a job can name."""

    colour: int = Field(description="Its own, from 0 to 6; what a comparison draws it in is in its `looks`.")


class Catalog(Output):
    """Everything that a job can name, with JSON Schemas of the parameters."""

    datasets: list[DatasetEntry]
    models: list[ModelEntry]
    optimizers: list[OptimizerEntry]
    schedules: list[CatalogEntry]


class Health(Output):
    """Whether a part works: `ok`, `degraded` (works, but something is away) or `down`."""

    status: str
    database: str
    broker: str


class ProblemField(Output):
    """One thing that is wrong with a request."""

    pointer: str
    detail: str


class Problem(Output):
    """An error (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM_EXAMPLE]})

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemField]
