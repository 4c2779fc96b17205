"""Data sets by their catalog names: reads the files, splits off validation, and makes a task of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split

from service.datasets.layouts import (
    DIGITS_GOLDEN,
    Layout,
    classes,
    describe,
    has_own_validation,
    locate,
    remedy,
    validation_records,
)
from service.specs.base import Kind
from service.specs.catalog import Dataset, DigitsParams, is_own
from workers.training.failures import AbsentData
from workers.training.readers import Images, Texts, read_images, read_own_arrays, read_texts
from workers.training.sources import FolderSource, Prepare, Source, TensorSource, augmented, image_folder, normalizer
from workers.training.tasks import Classification, Task

PADDING, UNKNOWN = 0, 1
"""Word ids that are no words."""

# Channel means and standard deviations of the published training sets, pixels in [0, 1].
CHANNELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_EVALUATION_NUMBERS = 2**20  # input numbers of an evaluation batch: bounds its memory, fills the machine
_EVALUATION_RECORDS = 1024


@dataclass(frozen=True)
class Inputs:
    """What a model has to read.

    `shape` is (C, H, W) of an image, (words,) of a text of at most so many words, or (D,) of a row of numbers.
    """

    shape: tuple[int, ...]
    classes: int
    vocabulary: int = 0
    """Number of word ids, padding and unknown included; 0 where there are no words."""


@dataclass(frozen=True)
class Request:
    """What a run asks of its data set. `batch_size` is in records; `seed` decides order and augmentation."""

    choice: Dataset
    data_dir: Path
    batch_size: int
    seed: int
    device: torch.device
    with_test: bool

    @property
    def params(self) -> Any:
        """The data set's parameters (a class of `service.specs.catalog`)."""
        return self.choice.params  # type: ignore[attr-defined]  # every choice has them

    @property
    def classes(self) -> int:
        """How many classes the data set has."""
        return classes(self.choice, self.data_dir)

    @property
    def name(self) -> str:
        """The data set's name in the catalog."""
        return str(self.choice.name)  # type: ignore[attr-defined]

    def task(self, train: Source, validation: Source, test: Source | None, shape: Sequence[int], data: str) -> Task:
        """The classification task over these sources, whose records have this shape and their data this hash.

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
            evaluation_size=max(2 * self.batch_size, fitting),  # no gradients are kept: twice a step's batch fits
            seed=self.seed,
            data_hash=data,
        )


def load(request: Request) -> tuple[Task, Inputs]:
    """The task that `request` describes and what its model reads.

    Raises:
        AbsentData: the data is not there.
        ValueError: the batch is larger than the training data.
    """
    layout = locate(request.name, request.data_dir)
    if layout is None:
        to_do = remedy(request.name) if is_own(request.name) else f"run `{remedy(request.name)}` on the worker"
        raise AbsentData(f"data set '{request.name}' is not in the data folder: {to_do}")
    return (OWN_BUILDERS[request.choice.kind] if is_own(request.name) else BUILDERS[request.name])(request, layout)


def split_rows(request: Request, records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that train (at most `limit`) and rows that validate, of `records` shuffled by the split's seed."""
    rows = np.random.default_rng(request.params.split_seed).permutation(records)
    held_out = validation_records(request.name, records)
    return rows[held_out:][: request.params.limit], rows[:held_out]


def _digits(request: Request, layout: Layout) -> tuple[Task, Inputs]:
    digits = read_images("digits", layout, "train")
    pixels = torch.from_numpy(digits.pixels.astype(np.float32) / 16).to(request.device)
    labels = torch.from_numpy(digits.labels).to(request.device)
    train, validation, test = (
        TensorSource(pixels[rows], labels[rows]) for rows in _digits_rows(request.params, digits.labels)
    )
    shape = pixels.shape[1:]
    task = request.task(train, validation, test if request.with_test else None, shape, digits.sha256())
    return task, Inputs(tuple(shape), request.classes)


def _digits_rows(params: DigitsParams, labels: NDArray[np.int64]) -> list[torch.Tensor]:
    """Rows that train, validate and test."""
    if params.split == "golden":
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        parts = torch.split(order, list(DIGITS_GOLDEN))
    else:
        learn, held_out, _ = DIGITS_GOLDEN
        state = _split_state(params.split_seed)
        rest, tested = _digits_tested(labels, state)
        if params.split == "fixed_test":  # `state` has drawn as for `seeded`, so that seed 0 gives the same parts
            rest, tested = _digits_tested(labels, _split_state(0))
        rows = train_test_split(rest, train_size=learn, test_size=held_out, stratify=labels[rest], random_state=state)
        parts = tuple(torch.from_numpy(part) for part in (*rows, tested))
    train, validation, test = parts
    return [train[: params.limit], validation, test]


def _split_state(seed: int) -> np.random.RandomState:
    """A state of its own, because scikit-learn's plain seeds end at 2**32."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


def _digits_tested(
    labels: NDArray[np.int64], state: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that train or validate, and rows that test."""
    rows = np.arange(len(labels))
    rest, tested = train_test_split(rows, test_size=DIGITS_GOLDEN[2], stratify=labels, random_state=state)
    return rest, tested


def _images(request: Request, layout: Layout) -> tuple[Task, Inputs]:
    images = read_images(request.name, layout, "train")
    learn, held_out = split_rows(request, len(images.labels))
    prepare = normalizer(*CHANNELS[request.name], request.device)
    generator = torch.Generator().manual_seed(request.seed) if getattr(request.params, "augment", False) else None

    def source(part: Images, rows: NDArray[np.int64] | slice, augment: torch.Generator | None = None) -> TensorSource:
        pixels, labels = torch.from_numpy(part.pixels[rows]), torch.from_numpy(part.labels[rows])
        prepared = prepare if augment is None else augmented(prepare, augment)
        return TensorSource(pixels.to(request.device), labels.to(request.device), prepared, augment)

    shape = images.pixels.shape[1:]
    task = request.task(
        source(images, learn, generator),
        source(images, held_out),
        source(read_images(request.name, layout, "test"), slice(None)) if request.with_test else None,
        shape,
        images.sha256(),
    )
    return task, Inputs(shape, request.classes)


def _image_folders(request: Request, layout: Layout) -> tuple[Task, Inputs]:
    size = request.params.image_size
    everything = image_folder(layout.root / "train", size)
    learn, held_out = (torch.from_numpy(rows) for rows in split_rows(request, len(everything)))
    listing = "\n".join(str(Path(path).relative_to(layout.root)) for path, _ in everything.samples)
    task = request.task(
        FolderSource(everything, learn, request.device),
        FolderSource(everything, held_out, request.device),
        FolderSource(image_folder(layout.root / "val", size), None, request.device) if request.with_test else None,
        (3, size, size),
        hashlib.sha256(listing.encode()).hexdigest(),  # names, not contents: reading 140 GB to hash it is no option
    )
    return task, Inputs((3, size, size), len(everything.classes))


def _texts(request: Request, layout: Layout) -> tuple[Task, Inputs]:
    texts = read_texts(request.name, layout, "train")
    if has_own_validation(layout):
        order = np.random.default_rng(request.params.split_seed).permutation(len(texts.labels))
        learn = _chosen(texts, order[: request.params.limit])
        held_out = read_texts(request.name, layout, "valid")
    else:
        learn, held_out = (_chosen(texts, rows) for rows in split_rows(request, len(texts.labels)))
    words = Words(request.params.vocabulary_size, request.params.max_length)
    train = words.learn(learn.texts)

    def source(part: Texts, ids: torch.Tensor) -> TensorSource:
        return TensorSource(ids.to(request.device), torch.from_numpy(part.labels).to(request.device))

    test = read_texts(request.name, layout, "test") if request.with_test else None
    task = request.task(
        source(learn, train),
        source(held_out, words.read(held_out.texts)),
        None if test is None else source(test, words.read(test.texts)),
        train.shape[1:],
        _own_sha256(request, texts) if is_own(request.name) else texts.sha256(),
    )
    return task, Inputs((request.params.max_length,), request.classes, words.ids)


def _own_arrays(request: Request, layout: Layout) -> tuple[Task, Inputs]:
    """Images, each channel scaled by mean and deviation of the records that train, or rows, each column likewise."""
    part = read_own_arrays(layout.root, "train")
    learn, held_out = split_rows(request, len(part.labels))
    shape = part.pixels.shape[1:]
    prepare = _scaled(part.pixels, learn, request.device)

    def source(part: Images, rows: NDArray[np.int64] | slice) -> TensorSource:
        inputs, labels = torch.from_numpy(part.pixels[rows]), torch.from_numpy(part.labels[rows])
        return TensorSource(inputs.to(request.device), labels.to(request.device), prepare)

    task = request.task(
        source(part, learn),
        source(part, held_out),
        source(read_own_arrays(layout.root, "test"), slice(None)) if request.with_test else None,
        shape,
        _own_sha256(request, part),
    )
    return task, Inputs(shape, request.classes)


def _scaled(inputs: NDArray[Any], rows: NDArray[np.int64], device: torch.device) -> Prepare:
    """(inputs - mean) / deviation over these rows, per channel of images or per column; what never changes is 0."""
    if inputs.ndim == 4:
        mean, deviation = _channel_moments(inputs, rows)
        return normalizer(tuple(mean / 255), tuple(deviation / 255), device)
    used = inputs[rows].astype(np.float64)
    mean, deviation = used.mean(0), used.std(0)
    centre = torch.from_numpy(mean).float().to(device)
    scale = torch.from_numpy(1 / np.where(deviation > 0, deviation, 1)).float().to(device)
    return lambda numbers: (numbers - centre) * scale


def _channel_moments(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel (C,), from how often each value is there; 1 for a deviation of 0."""
    values = np.arange(256)
    mean, deviation = np.zeros(pixels.shape[1]), np.ones(pixels.shape[1])
    for channel in range(pixels.shape[1]):
        share = np.bincount(pixels[rows, channel].ravel(), minlength=256) / (len(rows) * pixels[0, 0].size)
        mean[channel] = (share * values).sum()
        deviation[channel] = np.sqrt((share * (values - mean[channel]) ** 2).sum()) or 1.0
    return mean, deviation


def _own_sha256(request: Request, part: Images | Texts) -> str:
    """Of the training records as they lie there, and of all that was registered: the test records, too."""
    description = describe(request.name, request.data_dir)
    registered = "" if description is None else description.content_sha256
    return hashlib.sha256(f"{part.sha256()} {registered}".encode()).hexdigest()


def _chosen(texts: Texts, rows: NDArray[np.int64]) -> Texts:
    return Texts([texts.texts[row] for row in rows], texts.labels[rows])


class Words:
    """Turns texts into word ids: lower case, runs of letters and digits, the most frequent words of what it learned."""

    def __init__(self, vocabulary_size: int, max_length: int) -> None:
        self._split = CountVectorizer(token_pattern=r"(?u)\b\w+\b").build_analyzer()
        self._vectorizer = CountVectorizer(analyzer=list, max_features=vocabulary_size)
        self._max_length = max_length

    @property
    def ids(self) -> int:
        """Number of ids, padding and unknown included."""
        return len(self._vectorizer.vocabulary_) + 2

    def learn(self, texts: Sequence[str]) -> torch.Tensor:
        """Take the vocabulary from these texts, and give their ids (N, words), int32."""
        tokens = self._tokens(texts)
        self._vectorizer.fit(tokens)
        return self._ids(tokens)

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids (N, words) of texts, int32; cut at `max_length`, padded to the longest."""
        return self._ids(self._tokens(texts))

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return [self._split(re.sub(r"<br\s*/?>", " ", text)) for text in texts]

    def _ids(self, tokens: Sequence[Sequence[str]]) -> torch.Tensor:
        id_of = {word: int(position) + 2 for word, position in self._vectorizer.vocabulary_.items()}
        width = max(1, min(self._max_length, max(map(len, tokens), default=1)))
        ids = torch.full((len(tokens), width), PADDING, dtype=torch.int32)
        for row, words in enumerate(tokens):
            if words:
                numbers = [id_of.get(word, UNKNOWN) for word in words[:width]]
                ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int32)
        return ids


BUILDERS: dict[str, Callable[[Request, Layout], tuple[Task, Inputs]]] = {
    "digits": _digits,
    "mnist": _images,
    "fashion_mnist": _images,
    "cifar10": _images,
    "cifar100": _images,
    "imagenet": _image_folders,
    "imdb": _texts,
    "snips": _texts,
}
OWN_BUILDERS: dict[Kind, Callable[[Request, Layout], tuple[Task, Inputs]]] = {
    "image": _own_arrays,
    "table": _own_arrays,
    "text": _texts,
}
"""Of data sets that somebody registered, by what they hold."""
