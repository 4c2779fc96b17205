"""Which files of each data set lie where under a data folder, and how many records they train on.

Torch-free: the API asks whether data is present and how large it is; `workers.training.readers` reads the contents.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from pydantic import ValidationError

from service.datasets.schemas import Description
from service.specs.catalog import OWN, Dataset, is_own

IDX_FILES: dict[str, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
PICKLE_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}
SNIPS_INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
"""The seven intents; a label is the position of its name in this order."""

DIGITS_GOLDEN = (800, 200, 797)
"""Records of the digits that train, validate and test (docs/ko.md)."""

MOST_LISTED = 20
"""Data sets that a refusal names."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set's files can lie: `form` names it, `root` is the folder (or file) it starts at."""

    form: str
    root: Path


@dataclass(frozen=True)
class _Candidate:
    """A form, where it would lie below the data folder, and the files (any of a tuple's) that have to be there."""

    form: str
    folder: str
    files: tuple[tuple[str, ...], ...]


def _all(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


_IDX = tuple((f"{name}.gz", name) for names in IDX_FILES.values() for name in names)


def _pickles(name: str) -> tuple[tuple[str, ...], ...]:
    return _all(*(file for files in PICKLE_FILES[name].values() for file in files))


_CANDIDATES: dict[str, tuple[_Candidate, ...]] = {
    "digits": (_Candidate("builtin", "", ()),),
    "mnist": (_Candidate("idx", "mnist", _IDX), _Candidate("idx", "MNIST/raw", _IDX)),
    "fashion_mnist": (_Candidate("idx", "fashion_mnist", _IDX), _Candidate("idx", "FashionMNIST/raw", _IDX)),
    "cifar10": (
        _Candidate("pickles", "cifar-10-batches-py", _pickles("cifar10")),
        _Candidate("npz", "cifar10", _all("cifar10.npz")),
    ),
    "cifar100": (
        _Candidate("pickles", "cifar-100-python", _pickles("cifar100")),
        _Candidate("npz", "cifar100", _all("cifar100.npz")),
    ),
    "imagenet": (_Candidate("folders", "imagenet", _all("train", "val")),),
    "imdb": (
        _Candidate("folders", "aclImdb", _all("train/pos", "train/neg", "test/pos", "test/neg")),
        _Candidate("jsonl", "imdb", _all("train.jsonl.gz", "test.jsonl.gz")),
    ),
    "snips": (
        _Candidate("jsonl", "snips", _all("train.jsonl", "valid.jsonl", "test.jsonl")),
        _Candidate(
            "slots", "snips", _all(*(f"{s}/{f}" for s in ("train", "valid", "test") for f in ("seq.in", "label")))
        ),
        _Candidate(
            "intents",
            "2017-06-custom-intent-engines",
            _all(*(f"{i}/{file}" for i in SNIPS_INTENTS for file in (f"train_{i}_full.json", f"validate_{i}.json"))),
        ),
    ),
}


def locate(name: str, data_dir: Path) -> Layout | None:
    """The first accepted layout of data set `name` that is complete under `data_dir`; None where there is none."""
    if is_own(name):
        return Layout("own", own_folder(name, data_dir)) if describe(name, data_dir) else None
    for candidate in _CANDIDATES[name]:
        root = data_dir / candidate.folder
        if all(any((root / file).exists() for file in alternatives) for alternatives in candidate.files):
            return Layout(candidate.form, root)
    return None


def own_folder(name: str, data_dir: Path) -> Path:
    """Where the files of somebody's own data set lie: `data.npz`, or `train.jsonl` and `test.jsonl`, and what it is."""
    return data_dir / "own" / name


def own_names(data_dir: Path) -> list[str]:
    """Names of all data sets that somebody registered, as a job says them."""
    found = (f"{kind}/{folder.name}" for kind in OWN for folder in (data_dir / "own" / kind).glob("*"))
    return sorted(name for name in found if describe(name, data_dir))


def describe(name: str, data_dir: Path) -> Description | None:
    """What is known of somebody's own data set; None where there is none, or of a version that cannot be read.

    A name that cannot be one is never looked for: it comes from strangers and would be a path.
    """
    if not is_own(name):
        return None
    path = own_folder(name, data_dir) / "dataset.json"
    try:
        stat = path.stat()
        return _description(path, stat.st_mtime_ns, stat.st_ino)
    except OSError:  # not remembered: there may be too many open files for now
        return None


@lru_cache(maxsize=1024)
def _description(path: Path, mtime_ns: int, inode: int) -> Description | None:
    content = path.read_bytes()
    try:
        return Description.model_validate_json(content)
    except ValidationError:
        return None


def classes(choice: Dataset, data_dir: Path) -> int:
    """How many classes a data set has; two where it is not there, because fewer than that no set has."""
    name: str = choice.name  # type: ignore[attr-defined]  # every choice has one
    if not is_own(name):
        return choice.classes
    description = describe(name, data_dir)
    return 2 if description is None else len(description.classes)


def is_present(name: str, data_dir: Path) -> bool:
    """Whether data set `name` can be trained on; digits always can, since they ship with scikit-learn."""
    return locate(name, data_dir) is not None


def stamp(name: str, data_dir: Path) -> str | None:
    """What the files of data set `name` are now: another stamp where one was replaced; None where there are none.

    Of names, sizes and times of change, not of contents: reading 140 GB to hash them is no option. Class folders are
    told by their own time of change, which a file added or removed moves.
    """
    layout = locate(name, data_dir)
    if layout is None:
        return None
    digest = hashlib.sha256(layout.form.encode())
    if layout.form != "builtin":
        paths = layout.root.glob("*/*/") if layout.form == "folders" else layout.root.rglob("*")
        for path in sorted(path for path in paths if path.is_file() or layout.form == "folders"):
            stat = path.stat()
            digest.update(repr((str(path.relative_to(layout.root)), stat.st_mtime_ns, stat.st_size)).encode())
    return digest.hexdigest()


def fetch_command(name: str) -> str:
    """What to type to get the built-in data set `name`."""
    return f"kotrain data fetch {name}"


def remedy(name: str) -> str:
    """What to do on a machine where data set `name` is not there, though jobs need it."""
    return "give this machine the API's KOTRAIN_DATA_DIR" if is_own(name) else fetch_command(name)


def absence(name: str, data_dir: Path) -> str:
    """A sentence for whoever asks for data set `name`, which is not there."""
    if not is_own(name):
        return f"data set '{name}' is not present; fetch it with: {fetch_command(name)}"
    there = own_names(data_dir)
    close = difflib.get_close_matches(name, there, 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    listed = ", ".join(there[:MOST_LISTED]) + (", ..." if len(there) > MOST_LISTED else "")
    told = f"there are {listed}" if there else "none has been registered yet (POST /v1/datasets)"
    return f"there is no data set '{name}'{hint}; {told}"


def idx_file(root: Path, name: str) -> Path:
    """The idx file `name` below `root`, compressed or not."""
    compressed = root / f"{name}.gz"
    return compressed if compressed.exists() else root / name


def validation_records(name: str, records: int) -> int:
    """How many of a data set's `records` validate instead of training; 0 where it brings its own validation file."""
    if name == "digits":
        return DIGITS_GOLDEN[1]
    return max(1, records // 10) if is_own(name) else records // 10


def has_own_validation(layout: Layout) -> bool:
    """Whether the layout has a validation file, so that nothing is split off the training records."""
    return layout.form == "slots" or (layout.form == "jsonl" and (layout.root / "valid.jsonl").exists())


def train_records(choice: Dataset, data_dir: Path) -> int | None:
    """The number of records that `choice` trains on, after its validation split and limit.

    None where the data is absent or counting would take long (class folders of images).
    """
    name, limit = choice.name, choice.params.limit  # type: ignore[attr-defined]  # every choice has both
    layout = locate(name, data_dir)
    if (own := describe(name, data_dir)) is not None:
        records: int | None = own.train_records
    else:
        records = None if layout is None else _COUNTS[name, layout.form](choice, layout.root)
    if layout is None or records is None:
        return None
    if not has_own_validation(layout):
        records -= validation_records(name, records)
    return records if limit is None else min(limit, records)


def _nominal(choice: Dataset, root: Path) -> int | None:
    """The published number: the layout is that of the original archive, whose contents are known."""
    return choice.train_records


def _untold(choice: Dataset, root: Path) -> int | None:
    return None


def _count_idx(choice: Dataset, root: Path) -> int | None:
    path = idx_file(root, IDX_FILES["train"][1])
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "big")


def _count_npz(choice: Dataset, root: Path) -> int | None:
    with ZipFile(root / f"{root.name}.npz") as archive, archive.open("y_train.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read_header(file)[0]
    return shape[0]


def _count_review_files(choice: Dataset, root: Path) -> int | None:
    return sum(1 for label in ("pos", "neg") for _ in (root / "train" / label).glob("*.txt"))


def _count_compressed_lines(choice: Dataset, root: Path) -> int | None:
    return _lines(root / "train.jsonl.gz")


def _count_lines(choice: Dataset, root: Path) -> int | None:
    return _lines(root / "train.jsonl")


def _count_slot_lines(choice: Dataset, root: Path) -> int | None:
    return _lines(root / "train" / "label")


def _count_intents(choice: Dataset, root: Path) -> int | None:
    return sum(len(read_intents(root / intent / f"train_{intent}_full.json", intent)) for intent in SNIPS_INTENTS)


_COUNTS: dict[tuple[str, str], Callable[[Dataset, Path], int | None]] = {
    ("digits", "builtin"): _nominal,
    ("mnist", "idx"): _count_idx,
    ("fashion_mnist", "idx"): _count_idx,
    ("cifar10", "pickles"): _nominal,
    ("cifar10", "npz"): _count_npz,
    ("cifar100", "pickles"): _nominal,
    ("cifar100", "npz"): _count_npz,
    ("imagenet", "folders"): _untold,
    ("imdb", "folders"): _count_review_files,
    ("imdb", "jsonl"): _count_compressed_lines,
    ("snips", "jsonl"): _count_lines,
    ("snips", "slots"): _count_slot_lines,
    ("snips", "intents"): _count_intents,
}


def read_intents(path: Path, intent: str) -> list[str]:
    """The texts of one of the original Snips json files: each is a list of pieces, which join to the sentence."""
    raw = path.read_bytes()
    try:
        content = raw.decode()
    except UnicodeDecodeError:  # two of the published files are not UTF-8
        content = raw.decode("latin-1")
    return ["".join(piece["text"] for piece in record["data"]) for record in json.loads(content)[intent]]


def _lines(path: Path) -> int:
    """Lines of a text file, compressed or not; remembered until the file changes."""
    stat = path.stat()
    return _count_of_lines(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _count_of_lines(path: Path, mtime_ns: int, size_bytes: int) -> int:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(1 for line in file if line.strip())
