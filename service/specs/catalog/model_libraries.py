"""The models of libraries, by names such as `timm/resnet18`, read from `library_models.json`.

`make catalog` writes the file from the installed libraries.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from service.specs.text import closest

FILE = Path(__file__).with_name("library_models.json")

MODEL_LIBRARIES = ("torchvision", "timm")
"""First part of the names."""


class LibraryModel(BaseModel):
    """A model of a library: the images that it takes, and its size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    refusal: str | None = None
    """Why it cannot be used; None if it can."""
    native_side: int = 224
    """Height and width of the images that it was published for, in pixels."""
    smallest_side: int = 0
    """Smallest height and width of images that it takes, in pixels."""
    multiple_of: int = 1
    """Heights and widths have to be multiples of this number; 0: it takes images of the smallest side only."""
    is_square: bool = False
    """Whether it takes square images only."""
    is_colour_only: bool = False
    """Whether it takes images with three channels only."""
    is_sized: bool = False
    """Whether it is constructed for the size of the images, on which its number of parameters depends."""
    lone_record_side: int = 0
    """Up to this side, its batch normalization cannot train on a batch of a single record."""
    parameters: int = 0
    """Number of parameters for three channels and 1,000 classes, as libraries publish it, at the native side."""
    least_parameters: int | None = None
    """The same at the smallest side, for models whose number of parameters grows with the size; None for others."""
    per_channel: int = 0
    """Parameters of the stem per channel of the images."""
    per_class: int = 0
    """Parameters of the head per class."""
    stem: tuple[str, ...] = ()
    """Modules that depend on the number of channels."""
    head: tuple[str, ...] = ()
    """Modules that depend on the number of classes."""

    @property
    def class_name(self) -> str:
        """Name of the class of its entry."""
        return self.name.partition("/")[2].title().replace("_", "")

    def parameters_for(self, channels: int, classes: int) -> int:
        """Number of parameters for images of these channels and classes, at the native side."""
        return self.parameters + (channels - 3) * self.per_channel + (classes - 1000) * self.per_class

    def least_parameters_for(self, channels: int, classes: int) -> int:
        """Number of parameters for images of these channels and classes, of any size: at least this many."""
        surplus = 0 if self.least_parameters is None else self.parameters - self.least_parameters
        return self.parameters_for(channels, classes) - surplus

    def problem_with(self, channels: int, height: int, width: int) -> str | None:
        """Why it cannot take images of this shape; None if it can."""
        smallest, multiple = self.smallest_side, self.multiple_of
        if channels != 3 and self.is_colour_only:
            return f"{self.name} takes images with three channels only"
        if multiple == 0 and (height, width) != (smallest, smallest):
            return f"{self.name} takes images of {smallest} x {smallest} pixels only"
        if min(height, width) < smallest:
            return f"{self.name} takes images of at least {smallest} x {smallest} pixels"
        if multiple > 1 and (height % multiple or width % multiple):
            return f"{self.name} takes images whose height and width are multiples of {multiple} pixels"
        if self.is_square and height != width:
            return f"{self.name} takes square images only"
        return None


class ModelLibrary(BaseModel):
    """A library, and its models in the order of their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    licence: str
    url: str
    models: tuple[LibraryModel, ...]


@cache
def libraries() -> tuple[ModelLibrary, ...]:
    """All libraries."""
    return TypeAdapter(tuple[ModelLibrary, ...]).validate_json(FILE.read_bytes())


@cache
def _models() -> dict[str, LibraryModel]:
    return {model.name: model for library in libraries() for model in library.models}


def is_of_model_library(name: str) -> bool:
    """Whether `name` begins as that of a model of a library."""
    return name.partition("/")[0] in MODEL_LIBRARIES and "/" in name


def unknown_model(name: str) -> str:
    """The error for an unknown model of a library."""
    library = name.partition("/")[0]
    known = [other.partition("/")[2] for other in _models() if other.startswith(f"{library}/")]
    hint = closest(name.partition("/")[2], known)
    suggestion = f" (did you mean '{library}/{hint}'?)" if hint else ""
    return f"unknown model '{name[:64]}'{suggestion}; GET /v1/catalog/models/{library} lists the models of {library}"


def find_model(name: str) -> LibraryModel | None:
    """The model of a library, also a refused one; None if the name is unknown."""
    return _models().get(name)
