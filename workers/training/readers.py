"""Reads the files of a data set into arrays and texts, whatever the layout they lie in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.datasets.layouts import IDX_FILES, PICKLE_FILES, SNIPS_INTENTS, Layout, idx_file, read_intents

Part = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W), uint8, or rows of a table (N, D), float32, and labels (N,), int64."""

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
    """Texts as they lie in the files and their labels (N,), int64."""

    texts: list[str]
    labels: NDArray[np.int64]

    def sha256(self) -> str:
        """Hash of the labelled texts, sorted: layouts differ in the order of records."""
        lines = sorted(f"{label}\t{text}" for text, label in zip(self.texts, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_images(name: str, layout: Layout, part: Part) -> Images:
    """The images of one part of an image set; digits have no parts and are read whole."""
    if layout.form == "builtin":
        digits = load_digits()
        return Images(digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64))
    if layout.form == "idx":
        pixels, labels = (_read_idx(idx_file(layout.root, file)) for file in IDX_FILES[part])
        return Images(pixels[:, None], labels.astype(np.int64))
    if layout.form == "npz":
        with np.load(layout.root / f"{name}.npz", allow_pickle=False) as arrays:
            pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        return Images(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels.astype(np.int64))
    batches = [_read_cifar_pickle(layout.root / file) for file in PICKLE_FILES[name][part]]
    key = "fine_labels" if name == "cifar100" else "labels"
    return Images(
        np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32),
        np.concatenate([np.asarray(batch[key], dtype=np.int64) for batch in batches]),
    )


def read_texts(name: str, layout: Layout, part: Part) -> Texts:
    """The texts of one part of a text set.

    The original Snips json has no validation file of its own; its `validate_*` files are what everybody tests on.
    """
    if name == "imdb":
        return _read_review_files(layout.root / part) if layout.form == "folders" else _read_reviews(layout.root, part)
    if layout.form == "own":
        with (layout.root / f"{part}.jsonl").open(encoding="utf-8") as file:
            own = [json.loads(line) for line in file]
        return Texts([record["text"] for record in own], np.array([record["label"] for record in own], dtype=np.int64))
    if layout.form == "jsonl":
        records = [json.loads(line) for line in (layout.root / f"{part}.jsonl").read_text("utf-8").splitlines()]
        return _intents([(record["text"], record["label"]) for record in records])
    if layout.form == "slots":
        texts = (layout.root / part / "seq.in").read_text("utf-8").splitlines()
        labels = (layout.root / part / "label").read_text("utf-8").splitlines()
        return _intents(list(zip(texts, labels, strict=True)))
    pattern = "train_{}_full.json" if part == "train" else "validate_{}.json"
    return _intents(
        [
            (text, intent)
            for intent in SNIPS_INTENTS
            for text in read_intents(layout.root / intent / pattern.format(intent), intent)
        ]
    )


def _intents(records: list[tuple[str, str]]) -> Texts:
    return Texts(
        [text.strip() for text, _ in records],
        np.array([SNIPS_INTENTS.index(label.strip()) for _, label in records], dtype=np.int64),
    )


def read_own_arrays(root: Path, part: Part) -> Images:
    """One part of somebody's own images, or rows of a table."""
    with np.load(root / "data.npz", allow_pickle=False) as arrays:
        inputs, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    return Images(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)) if inputs.ndim == 4 else inputs, labels)


def _read_reviews(root: Path, part: Part) -> Texts:
    with gzip.open(root / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return Texts([r["text"] for r in records], np.array([r["label"] for r in records], dtype=np.int64))


def _read_review_files(root: Path) -> Texts:
    paths = [
        (path, label) for label, folder in enumerate(("neg", "pos")) for path in sorted((root / folder).glob("*.txt"))
    ]
    texts = [path.read_text("utf-8") for path, _ in paths]
    return Texts(texts, np.array([label for _, label in paths], dtype=np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes: magic (0, 0, 8, dimensions), big-endian sizes, then the data (LeCun et al.)."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an idx file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = np.frombuffer(raw[4:start], dtype=">u4")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy()  # torch wants it writable


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else could run code."""

    _allowed = {  # noqa: RUF012 (not a mutable default: nobody writes to it)
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
