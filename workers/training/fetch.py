"""Downloads a data set into the folder where the engine looks for it: `python -m workers.training.fetch NAME`."""

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
from service.datasets.layouts import SNIPS_INTENTS, is_present

MNIST_MIRROR = MNIST.mirrors[0]
FASHION_MNIST_MIRROR = FashionMNIST.mirrors[0]
SNIPS_ORIGIN = "https://raw.githubusercontent.com/snipsco/nlu-benchmark/master/2017-06-custom-intent-engines"


@dataclass(frozen=True)
class File:
    """One download: where from, which folder below the data folder it goes to, and its MD5 where one is published."""

    url: str
    folder: str
    md5: str | None
    is_archive: bool = False
    """An archive is unpacked in its folder and not kept."""


def _idx(mirror: str, folder: str, resources: list[tuple[str, str]]) -> tuple[File, ...]:
    return tuple(File(mirror + name, folder, md5) for name, md5 in resources)


SOURCES: Mapping[str, tuple[File, ...]] = {
    "mnist": _idx(MNIST_MIRROR, "mnist", MNIST.resources),
    "fashion_mnist": _idx(FASHION_MNIST_MIRROR, "fashion_mnist", FashionMNIST.resources),
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
    # No checksums are published for these; the transport and the parser vouch for them.
    "snips": tuple(
        File(f"{SNIPS_ORIGIN}/{intent}/{file}", f"2017-06-custom-intent-engines/{intent}", None)
        for intent in SNIPS_INTENTS
        for file in (f"train_{intent}_full.json", f"validate_{intent}.json")
    ),
}
BY_HAND = {
    "digits": "the digits ship with scikit-learn: there is nothing to fetch",
    "imagenet": "ImageNet must be obtained by hand from image-net.org (its licence forbids passing it on); "
    "put it at imagenet/train/CLASS/* and imagenet/val/CLASS/* in the data folder",
}


def fetch(name: str, data_dir: Path, sources: Mapping[str, tuple[File, ...]] = SOURCES) -> None:
    """Download data set `name` into `data_dir`; nothing appears there before all of it is complete and checked.

    Raises:
        ValueError: an unknown name, or a data set that cannot be downloaded.
        OSError: no network, or no such file there.
        RuntimeError: the download differs from its checksum.
    """
    if name in BY_HAND:
        raise ValueError(BY_HAND[name])
    if name not in sources:
        raise ValueError(f"'{name}' is not one of {', '.join(sorted([*sources, *BY_HAND]))}")
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
    """Entry point; the answer is the exit status."""
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
