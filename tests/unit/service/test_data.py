from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from service.catalog import DATASETS, Cifar10, DatasetParams, Digits, DigitsParams, Imdb, Mnist, Snips
from service.data import (
    IDX_FILES,
    PICKLE_FILES,
    SNIPS_INTENTS,
    fetch_command,
    is_present,
    locate,
    read_intents,
    train_records,
)


def put(path: Path, content: bytes | str = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def put_idx(folder: Path, records: int, suffix: str = ".gz") -> None:
    for names in IDX_FILES.values():
        for name in names:
            header = b"\0\0\x08\x01" + records.to_bytes(4, "big") + bytes(records)
            put(folder / (name + suffix), gzip.compress(header) if suffix else header)


def put_snips(folder: Path, records: int) -> None:
    for part in ("train", "valid", "test"):
        put(folder / f"{part}.jsonl", "".join(json.dumps({"text": "a", "label": "x"}) + "\n" for _ in range(records)))


class TestLocate:
    def test_only_digits_are_always_there(self, tmp_path: Path) -> None:
        assert [name for name in DATASETS if is_present(name, tmp_path)] == ["digits"]

    def test_incomplete_is_absent(self, tmp_path: Path) -> None:
        put_idx(tmp_path / "mnist", 3)
        assert is_present("mnist", tmp_path)
        (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
        assert not is_present("mnist", tmp_path)

    def test_the_first_layout_wins(self, tmp_path: Path) -> None:
        put_idx(tmp_path / "MNIST/raw", 3, suffix="")
        found = locate("mnist", tmp_path)
        assert found is not None
        assert found.root == tmp_path / "MNIST/raw"
        put_idx(tmp_path / "mnist", 3)
        found = locate("mnist", tmp_path)
        assert found is not None
        assert found.root == tmp_path / "mnist"

    @pytest.mark.parametrize(
        ("name", "form", "files"),
        [
            ("cifar10", "npz", ["cifar10/cifar10.npz"]),
            ("cifar100", "pickles", [f"cifar-100-python/{f}" for f in ("train", "test")]),
            ("imagenet", "folders", ["imagenet/train/a/1.jpg", "imagenet/val/a/2.jpg"]),
            ("imdb", "folders", [f"aclImdb/{p}/{c}/0_1.txt" for p in ("train", "test") for c in ("pos", "neg")]),
            ("imdb", "jsonl", ["imdb/train.jsonl.gz", "imdb/test.jsonl.gz"]),
            ("snips", "slots", [f"snips/{p}/{f}" for p in ("train", "valid", "test") for f in ("seq.in", "label")]),
        ],
    )
    def test_layouts(self, name: str, form: str, files: list[str], tmp_path: Path) -> None:
        for file in files:
            put(tmp_path / file)
        found = locate(name, tmp_path)
        assert found is not None
        assert found.form == form


class TestTrainRecords:
    def test_digits(self, tmp_path: Path) -> None:
        assert train_records(Digits(), tmp_path) == 800
        assert train_records(Digits(params=DigitsParams(limit=100)), tmp_path) == 100
        assert train_records(Digits(params=DigitsParams(limit=5000)), tmp_path) == 800

    def test_absent(self, tmp_path: Path) -> None:
        assert train_records(Mnist(), tmp_path) is None

    @pytest.mark.parametrize("suffix", [".gz", ""])
    def test_idx(self, suffix: str, tmp_path: Path) -> None:
        put_idx(tmp_path / "mnist", 300, suffix)
        assert train_records(Mnist(), tmp_path) == 270
        assert train_records(Mnist(params=DatasetParams(limit=20)), tmp_path) == 20

    def test_npz(self, tmp_path: Path) -> None:
        (tmp_path / "cifar10").mkdir()
        np.savez(tmp_path / "cifar10/cifar10.npz", y_train=np.zeros(50, np.uint8))
        assert train_records(Cifar10(), tmp_path) == 45

    def test_published_pickles(self, tmp_path: Path) -> None:
        for files in PICKLE_FILES["cifar10"].values():
            for file in files:
                put(tmp_path / "cifar-10-batches-py" / file)
        assert train_records(Cifar10(), tmp_path) == 45_000

    def test_own_validation_takes_nothing(self, tmp_path: Path) -> None:
        put_snips(tmp_path / "snips", 30)
        assert train_records(Snips(), tmp_path) == 30

    def test_counts_again_when_the_file_changed(self, tmp_path: Path) -> None:
        put_snips(tmp_path / "snips", 30)
        assert train_records(Snips(), tmp_path) == 30
        put_snips(tmp_path / "snips", 31)
        assert train_records(Snips(), tmp_path) == 31

    def test_original_snips(self, tmp_path: Path) -> None:
        for intent in SNIPS_INTENTS:
            records = {intent: [{"data": [{"text": "play "}, {"text": "it"}]}] * 10}
            for file in (f"train_{intent}_full.json", f"validate_{intent}.json"):
                put(tmp_path / "2017-06-custom-intent-engines" / intent / file, json.dumps(records))
        assert train_records(Snips(), tmp_path) == 63

    def test_reviews(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            for label in ("pos", "neg"):
                for number in range(10):
                    put(tmp_path / "aclImdb" / part / label / f"{number}_1.txt")
        assert train_records(Imdb(), tmp_path) == 18

    def test_folders_are_not_counted(self, tmp_path: Path) -> None:
        put(tmp_path / "imagenet/train/a/1.jpg")
        put(tmp_path / "imagenet/val/a/1.jpg")
        assert train_records(DATASETS["imagenet"](), tmp_path) is None


def test_intents_in_either_encoding(tmp_path: Path) -> None:
    text = json.dumps({"PlayMusic": [{"data": [{"text": "play "}, {"text": "café"}]}]}, ensure_ascii=False)
    for encoding in ("utf-8", "latin-1"):
        put(tmp_path / encoding, text.encode(encoding))
        assert read_intents(tmp_path / encoding, "PlayMusic") == ["play café"]


def test_fetch_command() -> None:
    assert fetch_command("mnist") == "kotrain data fetch mnist"
