"""Request and response bodies that several packages share. Response fields have no defaults: none is ever omitted."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from service.specs.patterns import ID_PART, LABEL, LINES, PRINTABLE, TAG_KEY


def _composed(text: str) -> str:
    """Letters composed with their marks (Unicode's form NFC), so that equal-looking tags are equal."""
    return unicodedata.normalize("NFC", text)


Label = Annotated[str, Field(pattern=LABEL), AfterValidator(_composed)]


TagKey = Annotated[str, Field(pattern=TAG_KEY), AfterValidator(_composed)]


IdPart = Annotated[
    str, Field(pattern=ID_PART, max_length=36, description="Id, or a part that only one id begins or ends with.")
]


ARCHIVED = "Include archived ones."
"""Description of the query parameter `archived`."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTABLE)]
"""The name of a job or comparison, for people."""


class Changes(BaseModel):
    """What the owner of a job or comparison changes after the fact. Omitted fields stay as they are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    name: Name | None = None
    tags: dict[TagKey, Label] = Field(default_factory=dict, max_length=32, description="Replace all tags.")
    note: Annotated[str, Field(max_length=10_000, pattern=LINES)] | None = Field(
        None, description="Text of your own, for people; null or empty: none."
    )
    archived: bool = Field(
        False, description="Keep it out of lists, boards and the leaderboard. Comparisons still use its results."
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give one or more of {', '.join(type(self).model_fields)}")
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The values to store, by column; `archived` is not one."""
        values = {name: getattr(self, name) for name in self.model_fields_set - {"archived"}}
        return values | ({"note": self.note or None} if "note" in values else {})

    @property
    def archive(self) -> bool | None:
        """Whether to archive or to bring back; None: neither."""
        return self.archived if "archived" in self.model_fields_set else None


class ComparisonChanges(Changes):
    """The same for a comparison, which always has a name."""

    name: Name = ""


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
    """A page of a list, newest first; pass `next` as `after` to get the next page."""

    data: list[Item]
    has_more: bool
    next: str | None


class CatalogEntry(Output):
    """An entry of the catalog."""

    name: str
    title: str
    params: dict[str, Any] = Field(description="JSON Schema of the parameters.")


class DatasetEntry(CatalogEntry):
    """A data set."""

    kind: str
    classes: int
    present: bool = Field(description="Whether its files are in the data folder.")
    fetch: str | None = Field(description="Command that downloads it; null if present.")


class ModelEntry(CatalogEntry):
    """A model."""

    reads: str = Field(description="Kind of data that it is made for: image, text or table.")
    also_reads: list[str] = Field(description="Other kinds of data that it accepts.")


class OptimizerEntry(CatalogEntry):
    """An optimizer."""

    colour: int = Field(
        description="Index of its default color, 0 to 6; a comparison's `looks` give the colors it uses."
    )


class OptimizerDetail(OptimizerEntry):
    """An optimizer, with what is known about it."""

    space: dict[str, Any] = Field(
        description="Default search space: three decades around the default learning rate, and around the default "
        "weight decay if it is above 0; empty without both."
    )
    needs: list[str] = Field(
        description="What it needs from the training loop beyond gradients: closure, create_graph, modes (train and "
        "eval), model, use_muon, total_steps, base or base_class."
    )
    base_of: list[str] = Field(description="The optimizers that can wrap it: ko, bimaxwell, control.")
    refusal: str | None = Field(description="Why it cannot be used; null if it can.")
    source: str | None = Field(description="Paper or page that describes it, if the library names one.")
    remarks: list[str] = Field(description="What the conformance test found that does not prevent its use.")


class LibraryOptimizer(Output):
    """An optimizer of a library."""

    name: str
    title: str
    refusal: str | None = Field(description="Why it cannot be used; null if it can.")


class LibraryEntry(Output):
    """A library of optimizers."""

    name: str
    version: str
    licence: str
    url: str
    optimizers: list[LibraryOptimizer]


class LibraryModelEntry(Output):
    """A model of a library."""

    name: str
    title: str
    parameters: int = Field(description="Number of parameters for color images and 1,000 classes.")
    smallest_side: int = Field(description="Smallest height and width of images that it takes, in pixels.")
    refusal: str | None = Field(description="Why it cannot be used; null if it can.")


class ModelDetail(LibraryModelEntry):
    """A model of a library, with what is known about it."""

    params: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    reads: str = Field(description="Kind of data that it is made for.")
    native_side: int = Field(description="Height and width of the images that it was published for, in pixels.")
    multiple_of: int = Field(
        description="Heights and widths have to be multiples of this number; 0: it takes images of the smallest side "
        "only."
    )
    is_square: bool = Field(description="Whether it takes square images only.")
    is_colour_only: bool = Field(description="Whether it takes images with three channels only.")
    stem: list[str] = Field(description="Modules that are fitted to the number of channels.")
    head: list[str] = Field(description="Modules that are fitted to the number of classes.")


class ModelLibraryEntry(Output):
    """A library of models."""

    name: str
    version: str
    licence: str
    url: str
    models: int = Field(description="Number of its models that can be used.")


class ModelLibraryDetail(Output):
    """A library of models, and its models in the order of their names."""

    name: str
    version: str
    licence: str
    url: str
    models: list[LibraryModelEntry]


class CodeSupport(Output):
    """Whether users can upload code, and what it may import."""

    accepted: bool
    runs: str = Field(description="How it runs, or why it is not accepted.")
    packages: list[str] = Field(description="Packages that it may import, beside Python's standard library.")
    optimizers: list[LibraryOptimizer] = Field(description="Uploaded optimizers, by names without a version.")


class Catalog(Output):
    """All data sets, models, optimizers and schedules, with JSON Schemas of their parameters."""

    datasets: list[DatasetEntry]
    models: list[ModelEntry]
    optimizers: list[OptimizerEntry]
    libraries: list[LibraryEntry] = Field(
        [], description="Libraries of further optimizers; `GET /v1/catalog/optimizers/{library}/{name}` describes one."
    )
    model_libraries: list[ModelLibraryEntry] = Field(
        [], description="Libraries of further models; `GET /v1/catalog/models/{library}` lists them."
    )
    schedules: list[CatalogEntry]
    code: CodeSupport | None = Field(None, description="Upload of code: `POST /v1/code`. Null from older servers.")


class Health(Output):
    """State of the service: `ok`, `degraded` (working, but a dependency is unavailable) or `down`."""

    status: str
    database: str
    broker: str


class Me(Output):
    """The user who owns the API key of the request."""

    user: str
    is_admin: bool


class ProblemField(Output):
    """An invalid field of a request."""

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
