"""Builders of the catalog's data sets: they read the files, split off validation records and create a task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from service.datasets.layouts import DIGITS_GOLDEN, Located, classes, describe, locate, remedy
from service.datasets.scaling import ColumnScaling
from service.specs.base import Kind
from service.specs.catalog.datasets import Dataset, DigitsParams, is_own
from service.specs.text import briefly_listed
from workers.training.failures import AbsentData
from workers.training.image_folders import FolderSource, ImageFolder
from workers.training.readers import (
    Images,
    Reader,
    Texts,
    cifar_pickles,
    read_digits,
    read_idx,
    read_intent_files,
    read_intent_lines,
    read_intent_slots,
    read_labelled_lines,
    read_npz,
    read_text_folders,
)
from workers.training.sources import Prepare, Source, TensorSource, augmented, normalizer
from workers.training.tasks import Classification, Task
from workers.training.words import Words

_EVALUATION_NUMBERS = 2**20  # input numbers of an evaluation batch: bounds its memory and uses the whole device
_EVALUATION_RECORDS = 1024


@dataclass(frozen=True)
class Inputs:
    """Dimensions of a model's input and output.

    `shape` is (C, H, W) for images, (words,) for texts of at most that number of words, or (D,) for rows of a table.
    """

    shape: tuple[int, ...]
    classes: int
    vocabulary: int = 0
    """Number of word ids, including padding and the unknown word; 0 for other data than texts."""


@dataclass(frozen=True)
class Request:
    """Use of a data set by a run. `batch_size` is in records; `seed` determines order and augmentation."""

    choice: Dataset
    data_dir: Path
    batch_size: int
    seed: int
    device: torch.device
    with_test: bool

    @property
    def params(self) -> Any:
        """The data set's parameters (a class of `service.specs.catalog.datasets`)."""
        return self.choice.params

    @property
    def classes(self) -> int:
        """The number of classes."""
        return classes(self.choice, self.data_dir)

    @property
    def name(self) -> str:
        """The data set's name in the catalog."""
        return self.choice.name

    def task(
        self,
        train: Source,
        validation: Source,
        test: Source | None,
        shape: Sequence[int],
        data: str,
        notes: Sequence[str] = (),
    ) -> Task:
        """The classification task on these sources.

        Args:
            train, validation, test: as in `Classification`.
            shape: shape of one input record.
            data: SHA-256 of the training data.
            notes: as in `Task`.

        Raises:
            ValueError: the batch is larger than the training data.
        """
        if self.batch_size > len(train):
            raise ValueError(f"batch_size {self.batch_size} is larger than the {len(train)} training records")
        fitting = min(_EVALUATION_RECORDS, _EVALUATION_NUMBERS // int(np.prod(shape)))
        return Classification(
            train,
            validation,
            test,
            batch_size=self.batch_size,
            evaluation_size=max(2 * self.batch_size, fitting),  # without gradients, twice the training batch fits
            seed=self.seed,
            data_hash=data,
            notes=notes,
        )


Builder = Callable[[Request, Located], tuple[Task, Inputs]]


def load(request: Request) -> tuple[Task, Inputs]:
    """The task that `request` describes, and the dimensions of its model.

    Raises:
        AbsentData: the data set is not present.
        ValueError: the batch is larger than the training data.
    """
    located = locate(request.name, request.data_dir)
    if located is None:
        advice = remedy(request.name) if is_own(request.name) else f"run `{remedy(request.name)}` on the worker"
        raise AbsentData(f"data set '{request.name}' is not in the data folder: {advice}")
    return (OWN_BUILDERS[request.choice.kind] if is_own(request.name) else BUILDERS[request.name])(request, located)


def split_rows(request: Request, located: Located, records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training records (at most `limit`) and of the validation records, shuffled by `split_seed`."""
    rows = np.random.default_rng(request.params.split_seed).permutation(records)
    held_out = located.validation_records(records)
    return rows[held_out:][: request.params.limit], rows[:held_out]


# --- digits ----------------------------------------------------------------------------------------------------------


def build_digits(request: Request, located: Located) -> tuple[Task, Inputs]:
    """The digits of scikit-learn, scaled to [0, 1] and split as the parameters say."""
    digits = read_digits()
    pixels = torch.from_numpy(digits.pixels.astype(np.float32) / 16).to(request.device)
    labels = torch.tensor(digits.labels, device=request.device)
    train, validation, test = (
        TensorSource(pixels[rows], labels[rows]) for rows in _digits_rows(request.params, digits.labels)
    )
    shape = pixels.shape[1:]
    task = request.task(train, validation, test if request.with_test else None, shape, digits.sha256())
    return task, Inputs(tuple(shape), request.classes)


def _digits_rows(params: DigitsParams, labels: NDArray[np.int64]) -> list[torch.Tensor]:
    """Indices of the training, validation and test records."""
    if params.split == "golden":
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        parts = torch.split(order, list(DIGITS_GOLDEN))
    else:
        learn, held_out, _ = DIGITS_GOLDEN
        state = _split_state(params.split_seed)
        rest, test = _split_off_test(labels, state)
        if params.split == "fixed_test":  # the first draw advances `state`, so that seed 0 gives the parts of `seeded`
            rest, test = _split_off_test(labels, _split_state(0))
        rows = train_test_split(rest, train_size=learn, test_size=held_out, stratify=labels[rest], random_state=state)
        parts = tuple(torch.from_numpy(part) for part in (*rows, test))
    return [parts[0][: params.limit], *parts[1:]]


def _split_state(seed: int) -> np.random.RandomState:
    """A generator with this seed; scikit-learn itself accepts only seeds below 2**32."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


def _split_off_test(
    labels: NDArray[np.int64], state: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and validation records, and indices of the test records."""
    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=DIGITS_GOLDEN[2], stratify=labels, random_state=state)
    return rest, test


# --- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSet:
    """Builder of images that fit into memory, normalized per channel and, with the parameter `augment`, augmented."""

    readers: Mapping[str, Reader[Images]]
    """Form of a layout -> its reader."""
    mean: tuple[float, ...]
    """Mean of each channel of the published training set, pixels in [0, 1]."""
    deviation: tuple[float, ...]
    """Standard deviation of each channel."""

    def __call__(self, request: Request, located: Located) -> tuple[Task, Inputs]:
        """See `load`."""
        read = self.readers[located.layout.form]
        images = read(located.files("train"), "train")
        learn, held_out = split_rows(request, located, len(images.labels))
        prepare = normalizer(self.mean, self.deviation, request.device)
        generator = torch.Generator().manual_seed(request.seed) if getattr(request.params, "augment", False) else None
        training = prepare if generator is None else augmented(prepare, generator)
        shape = images.pixels.shape[1:]
        task = request.task(
            _in_memory(request, images, learn, training, generator),
            _in_memory(request, images, held_out, prepare),
            _in_memory(request, read(located.files("test"), "test"), slice(None), prepare)
            if request.with_test
            else None,
            shape,
            images.sha256(),
        )
        return task, Inputs(shape, request.classes)


def _in_memory(
    request: Request,
    part: Images,
    rows: NDArray[np.int64] | slice,
    prepare: Prepare | None,
    generator: torch.Generator | None = None,
) -> TensorSource:
    inputs, labels = torch.from_numpy(part.pixels[rows]), torch.from_numpy(part.labels[rows])
    return TensorSource(inputs.to(request.device), labels.to(request.device), prepare, generator)


def build_image_folders(request: Request, located: Located) -> tuple[Task, Inputs]:
    """Images in class folders, read from their files for each batch."""
    size = request.params.image_size
    (train_folder,), (test_folder,) = located.files("train"), located.files("test")
    images = ImageFolder(train_folder, size)
    tested = ImageFolder(test_folder, size, images.classes) if request.with_test else None
    learn, held_out = (torch.from_numpy(rows) for rows in split_rows(request, located, len(images)))
    listing = "\n".join(str(path.relative_to(located.root)) for path, _ in images.samples)
    task = request.task(
        FolderSource(images, learn, request.device),
        FolderSource(images, held_out, request.device),
        None if tested is None else FolderSource(tested, None, request.device),
        (3, size, size),
        hashlib.sha256(listing.encode()).hexdigest(),  # of file names: hashing 140 GB of content takes too long
        notes=_notes_of_absent(tested),
    )
    return task, Inputs((3, size, size), len(images.classes))


def _notes_of_absent(tested: ImageFolder | None) -> list[str]:
    """A sentence about classes without test images."""
    if tested is None or not tested.absent:
        return []
    absent = [f"'{name}'" for name in tested.absent]
    return [f"the test part has no images of {briefly_listed(absent)}"]


def build_own_images(request: Request, located: Located) -> tuple[Task, Inputs]:
    """Uploaded images; channels are scaled by the moments of the training records."""
    part = read_npz(located.files("train"), "train")
    learn, held_out = split_rows(request, located, len(part.labels))
    mean, deviation = _channel_moments(part.pixels, learn)
    prepare = normalizer(tuple(mean / 255), tuple(deviation / 255), request.device)
    return _own_task(request, located, part, (learn, held_out), lambda part: part, prepare)


def build_own_table(request: Request, located: Located) -> tuple[Task, Inputs]:
    """An uploaded table; columns are scaled by the moments of the training records."""
    part = read_npz(located.files("train"), "train")
    learn, held_out = split_rows(request, located, len(part.labels))
    scaling = ColumnScaling.of(part.pixels[learn])
    return _own_task(
        request, located, part, (learn, held_out), lambda part: Images(scaling.apply(part.pixels), part.labels), None
    )


def _own_task(
    request: Request,
    located: Located,
    part: Images,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    convert: Callable[[Images], Images],
    prepare: Prepare | None,
) -> tuple[Task, Inputs]:
    """The task on an uploaded data set, of which `part` are the training records and `rows` their indices by use.

    `convert` is applied to each part as stored, `prepare` to each batch.
    """
    learn, held_out = rows
    train, shape = convert(part), part.pixels.shape[1:]
    test = convert(read_npz(located.files("test"), "test")) if request.with_test else None
    task = request.task(
        _in_memory(request, train, learn, prepare),
        _in_memory(request, train, held_out, prepare),
        None if test is None else _in_memory(request, test, slice(None), prepare),
        shape,
        _own_sha256(request, part),
    )
    return task, Inputs(shape, request.classes)


def _channel_moments(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel (C,), from histograms; a deviation of 0 becomes 1."""
    values = np.arange(256)
    mean, deviation = np.zeros(pixels.shape[1]), np.ones(pixels.shape[1])
    for channel in range(pixels.shape[1]):
        share = np.bincount(pixels[rows, channel].ravel(), minlength=256) / (len(rows) * pixels[0, 0].size)
        mean[channel] = (share * values).sum()
        deviation[channel] = np.sqrt((share * (values - mean[channel]) ** 2).sum()) or 1.0
    return mean, deviation


def _own_sha256(request: Request, part: Images | Texts) -> str:
    """Hash of the stored training records and of all uploaded content, including the test records."""
    description = describe(request.name, request.data_dir)
    uploaded = "" if description is None else description.content_sha256
    return hashlib.sha256(f"{part.sha256()} {uploaded}".encode()).hexdigest()


# --- texts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextSet:
    """Builder of texts; the vocabulary is built from the training records."""

    readers: Mapping[str, Reader[Texts]]
    """Form of a layout -> its reader."""

    def __call__(self, request: Request, located: Located) -> tuple[Task, Inputs]:
        """See `load`."""
        read = self.readers[located.layout.form]
        texts = read(located.files("train"), "train")
        if "valid" in located.layout.parts:
            order = np.random.default_rng(request.params.split_seed).permutation(len(texts.labels))
            learn = _subset(texts, order[: request.params.limit])
            held_out = read(located.files("valid"), "valid")
        else:
            learn, held_out = (_subset(texts, rows) for rows in split_rows(request, located, len(texts.labels)))
        words = Words(request.params.vocabulary_size, request.params.max_length)
        train = words.learn(learn.texts)

        def source(part: Texts, ids: torch.Tensor) -> TensorSource:
            return TensorSource(ids.to(request.device), torch.from_numpy(part.labels).to(request.device))

        test = read(located.files("test"), "test") if request.with_test else None
        task = request.task(
            source(learn, train),
            source(held_out, words.read(held_out.texts)),
            None if test is None else source(test, words.read(test.texts)),
            train.shape[1:],
            _own_sha256(request, texts) if is_own(request.name) else texts.sha256(),
        )
        return task, Inputs((request.params.max_length,), request.classes, words.ids)


def _subset(texts: Texts, rows: NDArray[np.int64]) -> Texts:
    return Texts([texts.texts[row] for row in rows], texts.labels[rows])


BUILDERS: dict[str, Builder] = {
    "digits": build_digits,
    "mnist": ImageSet({"idx": read_idx}, mean=(0.1307,), deviation=(0.3081,)),
    "fashion_mnist": ImageSet({"idx": read_idx}, mean=(0.2860,), deviation=(0.3530,)),
    "cifar10": ImageSet(
        {"pickles": cifar_pickles("labels"), "npz": read_npz},
        mean=(0.4914, 0.4822, 0.4465),
        deviation=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": ImageSet(
        {"pickles": cifar_pickles("fine_labels"), "npz": read_npz},
        mean=(0.5071, 0.4865, 0.4409),
        deviation=(0.2673, 0.2564, 0.2762),
    ),
    "imagenet": build_image_folders,
    "imdb": TextSet({"folders": read_text_folders, "jsonl": read_labelled_lines}),
    "snips": TextSet({"jsonl": read_intent_lines, "slots": read_intent_slots, "intents": read_intent_files}),
}
OWN_BUILDERS: dict[Kind, Builder] = {
    "image": build_own_images,
    "table": build_own_table,
    "text": TextSet({"own": read_labelled_lines}),
}
"""Kind of an uploaded data set -> its builder."""
