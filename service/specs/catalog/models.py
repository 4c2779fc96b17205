"""Models: their parameters and the kinds of data they read. Their modules: `workers.training.models`."""

from __future__ import annotations

from collections import ChainMap
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from service.specs.base import Frozen, Kind, unfit
from service.specs.catalog.base import DECLARED, Choice, Decay, LookedUp, OneOf, Width, key_by
from service.specs.catalog.model_libraries import LibraryModel, find_model, is_of_model_library, unknown_model
from service.specs.patterns import LIBRARY_MODEL_NAME

MODELS: dict[str, type[Model]] = {}

Widths = Annotated[tuple[Width, ...], Field(strict=False, max_length=64)]


class Model(Choice):
    """A model."""

    table: ClassVar[dict[str, Any]] = MODELS
    reads: ClassVar[Kind]
    """The kind of data that it is designed for."""
    also_reads: ClassVar[tuple[Kind, ...]] = ()
    """Other kinds of data that it accepts."""
    batch_side: ClassVar[int] = 0
    """Images of at most this many pixels a side reach batch normalization as one pixel each: it needs two records."""
    declared: ClassVar[LibraryModel | None] = None
    """What is known about a model of a library; None for the built-in ones."""

    @classmethod
    def union(cls) -> OneOf:
        """All built-in models, then those of libraries."""
        return OneOf(ChainMap({DECLARED: OfLibrary}, cls.table), by=key_by(is_of_model_library))


class NoParams(Frozen):
    """No parameters."""


# --- models of libraries ---------------------------------------------------------------------------------------------


class LibraryModelRequest(Frozen):
    """A model of a library; `GET /v1/catalog/models/NAME` describes the images that it takes."""

    name: Annotated[str, Field(pattern=LIBRARY_MODEL_NAME)]
    params: NoParams = NoParams()


class OfLibraryModel(Model):
    """Base of the entries of libraries' models, which are made when they are first named."""

    table: ClassVar[dict[str, Any]] = {}


_MAKING_ENTRIES = Lock()  # requests of several threads may name a model for the first time


def model_class(name: str) -> type[Model]:
    """The entry of a model. Raises KeyError or PydanticCustomError if there is none."""
    if not is_of_model_library(name):
        return MODELS[name]
    declared = find_model(name)
    if declared is None:
        raise unfit("name", unknown_model(name))
    if declared.refusal is not None:
        raise unfit("name", f"{name} cannot be used: {declared.refusal}")
    with _MAKING_ENTRIES:
        entry: type[Model] = OfLibraryModel.table.get(name) or _new_entry(declared)
    return entry


def _new_entry(declared: LibraryModel) -> type[Model]:
    members = {
        "__module__": __name__,
        "__doc__": declared.title,
        "__annotations__": {"name": Literal[declared.name], "params": NoParams},
        "name": declared.name,
        "params": NoParams(),
        "title": declared.title,
        "reads": "image",
        "batch_side": declared.lone_record_side,
        "declared": declared,
    }
    metaclass: Any = type(OfLibraryModel)
    entry = cast(type[Model], metaclass(declared.class_name, (OfLibraryModel,), members))
    entry.model_rebuild()
    return entry


OfLibrary = Annotated[Any, LookedUp(lambda value: (model_class(value["name"]), value), LibraryModelRequest)]

# --- built-in models -------------------------------------------------------------------------------------------------


class ScaledParams(Frozen):
    """Parameters of models whose initial weights can be scaled down, towards zero (the condensed initialization)."""

    init_scale: float = Field(
        1.0, gt=0, le=100, description="Factor by which initial weights and biases are multiplied."
    )


class MlpParams(ScaledParams):
    """Fully connected ReLU layers on the flattened image, or on a table's row."""

    hidden: Widths = Field((256, 256), description="Width of each hidden layer.")


class Mlp(Model):
    """Multilayer perceptron."""

    title = "fully connected ReLU network"
    reads, also_reads = "image", ("table",)
    name: Literal["mlp"] = "mlp"
    params: MlpParams = MlpParams()


class CnnParams(ScaledParams):
    """3 x 3 convolutions with ReLU and 2 x 2 pooling, then one linear layer."""

    channels: Annotated[tuple[Width, ...], Field(strict=False, min_length=1, max_length=8)] = Field(
        (32, 64, 128), description="Output channels of each convolution."
    )


class Cnn(Model):
    """Small convolutional network."""

    title = "small convolutional network"
    reads = "image"
    name: Literal["cnn"] = "cnn"
    params: CnnParams = CnnParams()


class ResNet18(Model):
    """ResNet-18 of torchvision."""

    title = "ResNet-18 (He et al. 2016), 3 x 3 stem up to 64 px"
    reads = "image"
    batch_side = 8
    name: Literal["resnet18"] = "resnet18"
    params: NoParams = NoParams()


class ResNet34(Model):
    """ResNet-34 of torchvision."""

    title = "ResNet-34 (He et al. 2016), 3 x 3 stem up to 64 px"
    reads = "image"
    batch_side = 8
    name: Literal["resnet34"] = "resnet34"
    params: NoParams = NoParams()


class ResNet50(Model):
    """ResNet-50 of torchvision."""

    title = "ResNet-50 (He et al. 2016), 3 x 3 stem up to 64 px"
    reads = "image"
    batch_side = 8
    name: Literal["resnet50"] = "resnet50"
    params: NoParams = NoParams()


class TextCnnParams(ScaledParams):
    """Convolutional sentence classifier (Kim 2014)."""

    embedding: Width = Field(128, description="Dimensions of a word vector.")
    channels: Width = Field(100, description="Filters per kernel size.")
    kernel_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(strict=False, min_length=1, max_length=8)
    ] = Field((3, 4, 5), description="Kernel sizes, in words.")
    dropout: Decay = Field(0.5, description="Dropout probability before the last layer.")


class TextCnn(Model):
    """Convolutional sentence classifier."""

    title = "convolutional sentence classifier (Kim 2014)"
    reads = "text"
    name: Literal["textcnn"] = "textcnn"
    params: TextCnnParams = TextCnnParams()


class LstmParams(Frozen):
    """LSTM layers over the words; a linear layer classifies the state after the last word."""

    embedding: Width = Field(128, description="Dimensions of a word vector.")
    hidden: Width = Field(128, description="Dimensions of the state, per direction.")
    layers: int = Field(1, ge=1, le=16)
    bidirectional: bool = True
    dropout: Decay = Field(0.0, description="Dropout probability before the last layer.")


class Lstm(Model):
    """LSTM sentence classifier."""

    title = "LSTM sentence classifier"
    reads = "text"
    name: Literal["lstm"] = "lstm"
    params: LstmParams = LstmParams()


class TransformerParams(Frozen):
    """A small pre-norm encoder with learned positions and mean pooling."""

    width: Width = Field(128, description="Dimensions of a token; a multiple of `heads`.")
    layers: int = Field(2, ge=1, le=64)
    heads: int = Field(4, ge=1, le=128)
    feedforward: Width = Field(256, description="Width of the feed-forward blocks.")
    dropout: Decay = 0.1

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise unfit("heads", f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Transformer(Model):
    """Small transformer encoder."""

    title = "small transformer encoder"
    reads = "text"
    name: Literal["transformer"] = "transformer"
    params: TransformerParams = TransformerParams()
