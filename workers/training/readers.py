"""Reads the files of a data set into arrays and texts, with one function per format (`service.datasets.layouts`)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.datasets.layouts import SNIPS_INTENTS, Part, read_intents


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W), uint8, or rows of a table (N, D), float64 or float32; and labels (N,), int64."""

    pixels: NDArray[Any]
    labels: NDArray[np.int64]

    def sha256(self) -> str:
        """Hash of shape, pixels and labels in file order."""
        digest = hashlib.sha256(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Texts:
    """Texts as in their files, and labels (N,), int64."""

    texts: list[str]
    labels: NDArray[np.int64]

    def sha256(self) -> str:
        """Hash of the labelled texts, sorted: layouts differ in the order of records."""
        lines = sorted(f"{label}\t{text}" for text, label in zip(self.texts, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


Records = TypeVar("Records", Images, Texts)
Reader = Callable[[Sequence[Path], Part], Records]
"""Files of a part (`Located.files`) and the part's name -> its records."""


@cache
def read_digits() -> Images:
    """The digits of scikit-learn, which have no parts; pixels are 0 to 16. Read once; the arrays are read-only."""
    digits = load_digits()
    images = Images(digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64))
    for array in (images.pixels, images.labels):
        array.flags.writeable = False
    return images


def read_idx(files: Sequence[Path], part: Part) -> Images:
    """Two idx files: gray images, and labels."""
    pixels, labels = map(_read_idx, files)
    return Images(pixels[:, None], labels.astype(np.int64))


def read_npz(files: Sequence[Path], part: Part) -> Images:
    """Images (N, H, W, C) or rows of a table (N, D), and labels (N,), of one part in an npz file."""
    with np.load(files[0], allow_pickle=False) as arrays:
        inputs, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    images = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)) if inputs.ndim == 4 else inputs
    return Images(images, labels.astype(np.int64))


def cifar_pickles(labels: str) -> Reader[Images]:
    """The reader of CIFAR's pickled batches, whose labels have the key `labels`."""

    def read(files: Sequence[Path], part: Part) -> Images:
        batches = [_read_cifar_pickle(file) for file in files]
        return Images(
            np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32),
            np.concatenate([np.asarray(batch[labels], dtype=np.int64) for batch in batches]),
        )

    return read


def read_labelled_lines(files: Sequence[Path], part: Part) -> Texts:
    """One JSON object per line, with `text` and the class number as `label`."""
    records = list(_json_lines(files[0]))
    return Texts([record["text"] for record in records], np.array([r["label"] for r in records], dtype=np.int64))


def read_text_folders(files: Sequence[Path], part: Part) -> Texts:
    """Folders of text files, one per class."""
    paths = [(path, label) for label, folder in enumerate(files) for path in sorted(folder.glob("*.txt"))]
    texts = [path.read_text("utf-8") for path, _ in paths]
    return Texts(texts, np.array([label for _, label in paths], dtype=np.int64))


def read_intent_lines(files: Sequence[Path], part: Part) -> Texts:
    """One JSON object per line, with `text` and the intent as `label`."""
    return _intents([(record["text"], record["label"]) for record in _json_lines(files[0])])


def read_intent_slots(files: Sequence[Path], part: Part) -> Texts:
    """Two files with the same number of lines: intents, and texts."""
    labels, texts = (file.read_text("utf-8").splitlines() for file in files)
    return _intents(list(zip(texts, labels, strict=True)))


def read_intent_files(files: Sequence[Path], part: Part) -> Texts:
    """The original Snips files, in a folder per intent; their `validate_*` files are commonly the test set."""
    return _intents([(text, file.parent.name) for file in files for text in read_intents(file)])


def _intents(records: list[tuple[str, str]]) -> Texts:
    return Texts(
        [text.strip() for text, _ in records],
        np.array([SNIPS_INTENTS.index(label.strip()) for _, label in records], dtype=np.int64),
    )


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes: magic (0, 0, 8, dimensions), big-endian sizes, then the data (LeCun et al.)."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an idx file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = np.frombuffer(raw[4:start], dtype=">u4")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy()  # torch needs it writable


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else could run code."""

    _allowed = {  # noqa: RUF012 (a constant)
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._allowed:
            return self._allowed[name]
        raise pickle.UnpicklingError(f"refused to load {module}.{name}: only numpy arrays are expected")


def _read_cifar_pickle(path: Path) -> dict[str, Any]:
    batch: dict[str, Any] = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    return batch
