"""Downloads a built-in data set to the data folder: `python -m workers.training.fetch NAME`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST
from torchvision.datasets.utils import download_url, extract_archive

from service.config import settings
from service.datasets.layouts import LAYOUTS, is_present

SNIPS_ORIGIN = "https://raw.githubusercontent.com/snipsco/nlu-benchmark/master"
_SNIPS = next(layout for layout in LAYOUTS["snips"] if layout.form == "intents")


@dataclass(frozen=True)
class File:
    """One download: its URL, its folder below the data folder, and its published MD5, if any."""

    url: str
    folder: str
    md5: str | None
    is_archive: bool = False
    """Whether the file is an archive, which is unpacked in its folder and then deleted."""


def _idx(published: type[MNIST], folder: str) -> tuple[File, ...]:
    return tuple(File(published.mirrors[0] + name, folder, md5) for name, md5 in published.resources)


SOURCES: Mapping[str, tuple[File, ...]] = {
    "mnist": _idx(MNIST, "mnist"),
    "fashion_mnist": _idx(FashionMNIST, "fashion_mnist"),
    "cifar10": (File(CIFAR10.url, "", CIFAR10.tgz_md5, is_archive=True),),
    "cifar100": (File(CIFAR100.url, "", CIFAR100.tgz_md5, is_archive=True),),
    "imdb": (
        File(
            "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            "",
            "7c2ac02c03563afcf9b574c7e56c153a",
            is_archive=True,
        ),
    ),
    # No checksums are published for these files.
    "snips": tuple(
        File(f"{SNIPS_ORIGIN}/{_SNIPS.folder}/{name}", f"{_SNIPS.folder}/{name.partition('/')[0]}", None)
        for names in _SNIPS.parts.values()
        for name in names
    ),
}
BY_HAND = {
    "digits": "the digits are part of scikit-learn and need no download",
    "imagenet": "download ImageNet by hand from image-net.org, whose license forbids redistribution, and put it at "
    "imagenet/train/CLASS/* and imagenet/val/CLASS/* in the data folder",
}


def fetch(name: str, data_dir: Path, sources: Mapping[str, tuple[File, ...]] = SOURCES) -> None:
    """Download data set `name` into `data_dir`, where it appears when all files are complete and verified.

    Raises:
        ValueError: unknown name, or a data set that cannot be downloaded.
        OSError: no network, or the server lacks the file.
        RuntimeError: a file differs from its checksum.
    """
    if name in BY_HAND:
        raise ValueError(BY_HAND[name])
    if name not in sources:
        raise ValueError(f"unknown data set '{name}'; choose one of {', '.join(sorted([*sources, *BY_HAND]))}")
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=data_dir) as folder:
        for file in sources[name]:
            _download(file, Path(folder))
        for entry in Path(folder).iterdir():
            shutil.copytree(entry, data_dir / entry.name, dirs_exist_ok=True, copy_function=shutil.move)


def _download(file: File, root: Path) -> None:
    folder = root / file.folder
    name = file.url.rpartition("/")[2]
    try:
        download_url(file.url, folder, name, file.md5)
    except RuntimeError as error:
        raise RuntimeError(f"{file.url} differs from its published checksum") from error
    if file.is_archive:
        extract_archive(folder / name, folder, remove_finished=True)


def main(arguments: list[str] | None = None, sources: Mapping[str, tuple[File, ...]] = SOURCES) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.training.fetch", description=__doc__)
    parser.add_argument("name", help="name of the data set")
    parser.add_argument("--data-dir", type=Path, default=None, help="the data folder (default: KOTRAIN_DATA_DIR)")
    options = parser.parse_args(arguments)
    data_dir = options.data_dir or settings().data
    try:
        if options.name in sources and is_present(options.name, data_dir):
            print(f"{options.name} is already in {data_dir}")
            return 0
        fetch(options.name, data_dir, sources)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"cannot fetch {options.name}: {error}", file=sys.stderr)
        return 1
    print(f"{options.name} is in {data_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
