"""Where the files of each data set are below the data folder, whether they are present, and how many records they have.

Free of torch, because the API imports it; `workers.training.datasets` reads the contents.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal
from zipfile import ZipFile

import numpy as np
from pydantic import ValidationError

from service.datasets.schemas import Description
from service.specs.catalog.datasets import OWN, Dataset, is_own

Part = Literal["train", "valid", "test"]
Counter = Callable[[Sequence[Path]], int | None]
"""Files of the part `train` -> number of records; None if counting would take long."""

SNIPS_INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
"""The seven intents; a label is an index into this tuple."""

DIGITS_GOLDEN = (800, 200, 797)
"""Training, validation and test records of the digits (docs/ko.md)."""

MAX_LISTED = 20
"""Maximum number of data sets that an error message lists."""


@dataclass(frozen=True)
class Layout:
    """A possible arrangement of the files of a data set below the data folder.

    Without a part `valid`, validation records are split off the training records.
    """

    form: str
    """Its name within the data set, by which `workers.training.datasets` picks the reader."""
    folder: str
    """Its root, relative to the data folder."""
    parts: Mapping[Part, tuple[str, ...]]
    """Part -> its files (or folders of files), relative to `folder`; all have to exist."""
    count: Counter | None = None
    """None: the published number of records, for an original archive, whose contents are known."""
    gzip: bool = False
    """Whether each file may be compressed, with the suffix `.gz`; a compressed one is preferred."""
    validation: int | None = None
    """Number of training records to split off for validation; None: a tenth."""

    def file(self, root: Path, name: str) -> Path | None:
        """The existing file `name` below `root`, compressed or not; None if absent."""
        names = (f"{name}.gz", name) if self.gzip else (name,)
        return next((root / candidate for candidate in names if (root / candidate).exists()), None)

    def is_complete(self, root: Path) -> bool:
        """Whether all files exist below `root`."""
        return all(self.file(root, name) for names in self.parts.values() for name in names)


@dataclass(frozen=True)
class Located:
    """The files of a data set that is present: their layout and its root."""

    layout: Layout
    root: Path

    def files(self, part: Part) -> list[Path]:
        """The files of a part, in the order of the layout."""
        return [self.layout.file(self.root, name) or self.root / name for name in self.layout.parts[part]]

    def validation_records(self, records: int) -> int:
        """Number of training records to split off for validation; 0 if the layout has a validation part."""
        if "valid" in self.layout.parts:
            return 0
        return max(1, records // 10) if self.layout.validation is None else self.layout.validation


# --- counting --------------------------------------------------------------------------------------------------------


def _uncounted(files: Sequence[Path]) -> int | None:
    return None


def _count_idx(files: Sequence[Path]) -> int:
    with _open(files[0]) as file:
        return int.from_bytes(file.read(8)[4:], "big")


def _count_npz(files: Sequence[Path]) -> int:
    with ZipFile(files[0]) as archive, archive.open("y_train.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read_header(file)[0]
    return shape[0]


def _count_text_files(folders: Sequence[Path]) -> int:
    return sum(1 for folder in folders for _ in folder.glob("*.txt"))


def _count_lines(files: Sequence[Path]) -> int:
    stat = files[0].stat()
    return _lines(files[0], stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _lines(path: Path, mtime_ns: int, size_bytes: int) -> int:
    """Lines of a text file that are not empty; cached until the file changes."""
    with _open(path) as file:
        return sum(1 for line in file if line.strip())


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _count_intents(files: Sequence[Path]) -> int:
    return sum(len(read_intents(path)) for path in files)


def read_intents(path: Path) -> list[str]:
    """The texts of an original Snips file, `INTENT/FILE.json`, which stores each text as a list of pieces."""
    raw = path.read_bytes()
    try:
        content = raw.decode()
    except UnicodeDecodeError:  # two of the published files are not UTF-8
        content = raw.decode("latin-1")
    return ["".join(piece["text"] for piece in record["data"]) for record in json.loads(content)[path.parent.name]]


# --- layouts ---------------------------------------------------------------------------------------------------------


def _idx(folder: str) -> Layout:
    """Images and labels of each part in the idx format."""
    train = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    test = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return Layout("idx", folder, {"train": train, "test": test}, _count_idx, gzip=True)


def _npz(name: str) -> Layout:
    """Arrays `x_train` (N, H, W, C), `y_train` (N,), `x_test` and `y_test` in one file."""
    return Layout("npz", name, {"train": (f"{name}.npz",), "test": (f"{name}.npz",)}, _count_npz)


def _jsonl(folder: str, suffix: str, *parts: Part) -> Layout:
    """A line for each record, with `text` and `label`."""
    return Layout("jsonl", folder, {part: (f"{part}{suffix}",) for part in parts}, _count_lines)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "digits": (Layout("builtin", "", {}, validation=DIGITS_GOLDEN[1]),),
    "mnist": (_idx("mnist"), _idx("MNIST/raw")),
    "fashion_mnist": (_idx("fashion_mnist"), _idx("FashionMNIST/raw")),
    "cifar10": (
        Layout(
            "pickles",
            "cifar-10-batches-py",
            {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        ),
        _npz("cifar10"),
    ),
    "cifar100": (
        Layout("pickles", "cifar-100-python", {"train": ("train",), "test": ("test",)}),
        _npz("cifar100"),
    ),
    "imagenet": (Layout("folders", "imagenet", {"train": ("train",), "test": ("val",)}, _uncounted),),
    "imdb": (
        Layout(
            "folders",
            "aclImdb",
            {"train": ("train/neg", "train/pos"), "test": ("test/neg", "test/pos")},
            _count_text_files,
        ),
        _jsonl("imdb", ".jsonl.gz", "train", "test"),
    ),
    "snips": (
        _jsonl("snips", ".jsonl", "train", "valid", "test"),
        Layout(
            "slots",
            "snips",
            {
                "train": ("train/label", "train/seq.in"),
                "valid": ("valid/label", "valid/seq.in"),
                "test": ("test/label", "test/seq.in"),
            },
            _count_lines,
        ),
        Layout(
            "intents",
            "2017-06-custom-intent-engines",
            {
                "train": tuple(f"{intent}/train_{intent}_full.json" for intent in SNIPS_INTENTS),
                "test": tuple(f"{intent}/validate_{intent}.json" for intent in SNIPS_INTENTS),
            },
            _count_intents,
        ),
    ),
}
"""Built-in data set -> its accepted layouts; the first one that is complete is read."""

_OWN_ARRAYS = Layout("own", "", {"train": ("data.npz",), "test": ("data.npz",)})
OWN_LAYOUTS: dict[str, Layout] = {
    "images": _OWN_ARRAYS,
    "texts": Layout("own", "", {"train": ("train.jsonl",), "test": ("test.jsonl",)}),
    "tables": _OWN_ARRAYS,
}
"""First part of the name of an uploaded data set -> the layout in which it is stored."""


def locate(name: str, data_dir: Path) -> Located | None:
    """The files of data set `name` below `data_dir`; None if it is not present."""
    if is_own(name):
        layout, root = OWN_LAYOUTS[name.partition("/")[0]], own_folder(name, data_dir)
        return Located(layout, root) if describe(name, data_dir) else None
    places = ((layout, data_dir / layout.folder) for layout in LAYOUTS[name])
    return next((Located(layout, root) for layout, root in places if layout.is_complete(root)), None)


def own_folder(name: str, data_dir: Path) -> Path:
    """The folder of the uploaded data set `name`: its records, and their description in `dataset.json`."""
    return data_dir / "own" / name


def own_names(data_dir: Path) -> list[str]:
    """Names of all uploaded data sets."""
    names = (f"{kind}/{folder.name}" for kind in OWN for folder in (data_dir / "own" / kind).glob("*"))
    return sorted(name for name in names if describe(name, data_dir))


def describe(name: str, data_dir: Path) -> Description | None:
    """The description of an uploaded data set; None if it is absent or has an unsupported version.

    A malformed name is rejected before it becomes a path, because names come from requests.
    """
    if not is_own(name):
        return None
    path = own_folder(name, data_dir) / "dataset.json"
    try:
        stat = path.stat()
        return _description(path, stat.st_mtime_ns, stat.st_ino)
    except OSError:  # not cached: too many files may be open at the moment
        return None


@lru_cache(maxsize=1024)
def _description(path: Path, mtime_ns: int, inode: int) -> Description | None:
    content = path.read_bytes()
    try:
        return Description.model_validate_json(content)
    except ValidationError:
        return None


def classes(choice: Dataset, data_dir: Path) -> int:
    """The number of classes of a data set; 2, the minimum, for an uploaded one that is absent."""
    if not is_own(choice.name):
        return choice.classes
    description = describe(choice.name, data_dir)
    return 2 if description is None else len(description.classes)


def is_present(name: str, data_dir: Path) -> bool:
    """Whether the files of data set `name` are complete. The digits, which are part of scikit-learn, always are."""
    return locate(name, data_dir) is not None


def stamp(name: str, data_dir: Path) -> str | None:
    """A hash that changes when a file of data set `name` is replaced; None if the data set is not present.

    It covers names, sizes and modification times, because hashing the contents of 140 GB takes too long. For class
    folders it covers only the modification time, which changes when a file is added or removed.
    """
    located = locate(name, data_dir)
    if located is None:
        return None
    root, form = located.root, located.layout.form
    digest = hashlib.sha256(form.encode())
    if form != "builtin":
        paths = root.glob("*/*/") if form == "folders" else root.rglob("*")
        for path in sorted(path for path in paths if path.is_file() or form == "folders"):
            stat = path.stat()
            digest.update(repr((str(path.relative_to(root)), stat.st_mtime_ns, stat.st_size)).encode())
    return digest.hexdigest()


def fetch_command(name: str) -> str:
    """The command that downloads the built-in data set `name`."""
    return f"kotrain data fetch {name}"


def remedy(name: str) -> str:
    """How to provide data set `name` on a machine that lacks it."""
    return "give this machine the API's KOTRAIN_DATA_DIR" if is_own(name) else fetch_command(name)


def absence(name: str, data_dir: Path) -> str:
    """The error message for data set `name`, which is not present."""
    if not is_own(name):
        return f"data set '{name}' is not present; fetch it with: {fetch_command(name)}"
    names = own_names(data_dir)
    close = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    uploaded = f"uploaded data sets: {listed}" if names else "no data set has been uploaded yet (POST /v1/datasets)"
    return f"unknown data set '{name}'{hint}; {uploaded}"


def image_shape(choice: Dataset, data_dir: Path) -> tuple[int, int, int] | None:
    """Channels, height and width of an image; None for other data, and for an uploaded data set that is absent."""
    description = describe(choice.name, data_dir)
    if description is None or choice.kind != "image":
        return choice.image_shape
    channels, height, width = description.shape
    return channels, height, width


def train_records(choice: Dataset, data_dir: Path) -> int | None:
    """The number of records that `choice` trains on, without validation records and after its limit.

    None if the data is absent or counting would take long (class folders of images).
    """
    located = locate(choice.name, data_dir)
    if located is None:
        return None
    if (description := describe(choice.name, data_dir)) is not None:
        records: int | None = description.train_records
    else:
        count = located.layout.count
        records = choice.train_records if count is None else count(located.files("train"))
    if records is None:
        return None
    records -= located.validation_records(records)
    return records if choice.params.limit is None else min(choice.params.limit, records)
