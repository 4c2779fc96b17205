"""Data sets: the built-in ones, and the three kinds of uploaded ones. Their files: `service.datasets.layouts`."""

from __future__ import annotations

import re
from collections import ChainMap
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from service.specs.base import Frozen, Kind
from service.specs.catalog.base import Choice, OneOf, Seed
from service.specs.patterns import OWN_NAME

Resplits = Literal["all", "validation", "nothing"]

DATASETS: dict[str, type[Dataset]] = {}
"""The built-in data sets."""


class DatasetParams(Frozen):
    """Parameters of every data set."""

    split_seed: Seed = Field(0, description="Seed of the split into training and validation records.")
    limit: int | None = Field(
        None,
        ge=10,
        le=10**8,
        description="Number of training records to use, drawn at random with `split_seed`; null: all.",
    )


class Dataset(Choice):
    """A data set. The classes and records of an uploaded one (`OwnDataset`) are in `service.datasets.schemas`."""

    table: ClassVar[dict[str, Any]] = DATASETS
    kind: ClassVar[Kind]
    classes: ClassVar[int]
    train_records: ClassVar[int]
    """Records of the published training set, before validation is split off."""
    images: ClassVar[tuple[int, int, int] | None] = None
    """Channels, height and width of an image, where they do not depend on the parameters."""

    params: DatasetParams

    @property
    def resplits(self) -> Resplits:
        """Which parts depend on `split_seed`: all three, validation (split off the training records), or nothing."""
        return "validation"

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of an image; None for other kinds, and for uploaded data sets."""
        return self.images

    @classmethod
    def union(cls) -> OneOf:
        """All built-in data sets, then the three kinds of uploaded ones."""
        own: dict[str, Any] = {f"{kind}/NAME": entry for kind, entry in OWN.items()}
        return OneOf(ChainMap(own, cls.table), by=_chosen_dataset)  # a chain begins with its last map


class DigitsParams(DatasetParams):
    """800 training, 200 validation and 797 test records, stratified by class.

    With `seeded`, all three parts are drawn at random with `split_seed`. With `fixed_test`, training and validation
    records are drawn with `split_seed`, and the test records are always those of `seeded` with seed 0, so that a choice
    made by tuning is tested on records that no split has trained on. `golden` is the split of the reference table in
    docs/ko.md; it is not stratified.
    """

    split: Literal["seeded", "fixed_test", "golden"] = Field(
        "seeded",
        description="How records are split: all parts drawn at random with `split_seed` (`seeded`), training and "
        "validation records drawn at random with `split_seed` and fixed test records (`fixed_test`), or the fixed "
        "split of the reference table (`golden`).",
    )


class Digits(Dataset):
    """scikit-learn's digits, 8 x 8 pixels; included in scikit-learn."""

    title = "scikit-learn digits, 8 x 8 gray, 1,797 records"
    kind, classes, train_records, images = "image", 10, 1000, (1, 8, 8)
    name: Literal["digits"] = "digits"
    params: DigitsParams = DigitsParams()

    @property
    def resplits(self) -> Resplits:
        """See `DigitsParams`."""
        by_split: dict[str, Resplits] = {"seeded": "all", "fixed_test": "validation", "golden": "nothing"}
        return by_split[self.params.split]


class Mnist(Dataset):
    """MNIST."""

    title = "MNIST, 28 x 28 gray (LeCun et al. 1998)"
    kind, classes, train_records, images = "image", 10, 60_000, (1, 28, 28)
    name: Literal["mnist"] = "mnist"
    params: DatasetParams = DatasetParams()


class FashionMnist(Dataset):
    """Fashion-MNIST."""

    title = "Fashion-MNIST, 28 x 28 gray (Xiao et al. 2017)"
    kind, classes, train_records, images = "image", 10, 60_000, (1, 28, 28)
    name: Literal["fashion_mnist"] = "fashion_mnist"
    params: DatasetParams = DatasetParams()


class AugmentedParams(DatasetParams):
    """Parameters of image sets that are usually trained with random crops and flips."""

    augment: bool = Field(False, description="Random crops (padding 4) and random horizontal flips of training images.")


class Cifar10(Dataset):
    """CIFAR-10."""

    title = "CIFAR-10, 32 x 32 color (Krizhevsky 2009)"
    kind, classes, train_records, images = "image", 10, 50_000, (3, 32, 32)
    name: Literal["cifar10"] = "cifar10"
    params: AugmentedParams = AugmentedParams()


class Cifar100(Dataset):
    """CIFAR-100 with fine labels."""

    title = "CIFAR-100, 32 x 32 color (Krizhevsky 2009)"
    kind, classes, train_records, images = "image", 100, 50_000, (3, 32, 32)
    name: Literal["cifar100"] = "cifar100"
    params: AugmentedParams = AugmentedParams()


class FolderParams(DatasetParams):
    """Parameters of images that are read from class folders, one file per record."""

    image_size: int = Field(224, ge=32, le=512, description="Side of the square center crop, in pixels.")


class ImageNet(Dataset):
    """ImageNet, or any folder of the same layout: `imagenet/{train,val}/CLASS/*`; `val` is the test set."""

    title = "ImageNet-1k class folders (Deng et al. 2009)"
    kind, classes, train_records = "image", 1000, 1_281_167
    name: Literal["imagenet"] = "imagenet"
    params: FolderParams = FolderParams()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Color images of the size in the parameters."""
        return 3, self.params.image_size, self.params.image_size


class TextParams(DatasetParams):
    """Parameters of texts: words are lower-cased; the most frequent ones in the training texts form the vocabulary."""

    vocabulary_size: int = Field(
        20_000,
        ge=2,
        le=1_000_000,
        description="Number of words in the vocabulary; others are mapped to the unknown-word token.",
    )
    max_length: int = Field(256, ge=1, le=4096, description="Number of words to keep of each text.")


class Imdb(Dataset):
    """IMDB movie reviews."""

    title = "IMDB movie reviews (Maas et al. 2011)"
    kind, classes, train_records = "text", 2, 25_000
    name: Literal["imdb"] = "imdb"
    params: TextParams = TextParams()


class SnipsParams(TextParams):
    """Parameters of the Snips intents, which are short texts."""

    max_length: int = Field(32, ge=1, le=4096, description="Number of words to keep of each text.")


class Snips(Dataset):
    """Snips voice-assistant intents."""

    title = "Snips intents (Coucke et al. 2018)"
    kind, classes, train_records = "text", 7, 13_084
    name: Literal["snips"] = "snips"
    params: SnipsParams = SnipsParams()

    @property
    def resplits(self) -> Resplits:
        """The validation set is published."""
        return "nothing"


# --- uploaded data sets --------------------------------------------------------------------------------------------

OwnImagesName = Annotated[str, Field(pattern=f"^images/{OWN_NAME}$")]
OwnTextsName = Annotated[str, Field(pattern=f"^texts/{OWN_NAME}$")]
OwnTableName = Annotated[str, Field(pattern=f"^tables/{OWN_NAME}$")]


class OwnDataset(Dataset):
    """A data set that a user uploaded; the first part of its name follows from its kind."""


class OwnImages(OwnDataset):
    """Uploaded images, all of one size."""

    title, kind = "uploaded images", "image"
    name: OwnImagesName
    params: DatasetParams = DatasetParams()


class OwnTexts(OwnDataset):
    """Uploaded texts with labels."""

    title, kind = "uploaded texts", "text"
    name: OwnTextsName
    params: TextParams = TextParams()


class OwnTable(OwnDataset):
    """An uploaded table of numbers with labels."""

    title, kind = "uploaded table of numbers", "table"
    name: OwnTableName
    params: DatasetParams = DatasetParams()


OWN: dict[str, type[OwnDataset]] = {"images": OwnImages, "texts": OwnTexts, "tables": OwnTable}
"""First part of the name -> its entry; the second part is the user's."""


def _chosen_dataset(value: Any) -> str | None:
    """The key in `Dataset.union`: the name of a built-in data set, or the kind of an uploaded one."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None if name is None else str(name)
    kind, slash, _ = name.partition("/")
    return f"{kind}/NAME" if slash and kind in OWN else name


def is_own(name: str) -> bool:
    """Whether `name` can be that of an uploaded data set."""
    return re.fullmatch(f"(?:{'|'.join(OWN)})/{OWN_NAME}", name) is not None


def dataset_class(name: str) -> type[Dataset]:
    """The entry of the data set `name`. Raises KeyError if no data set can have this name."""
    return OWN[name.partition("/")[0]] if is_own(name) else DATASETS[name]


def default_dataset(name: str) -> Dataset:
    """The data set `name` with default parameters. Raises KeyError as `dataset_class`."""
    return dataset_class(name).model_validate({"name": name})
