"""Layouts of data sets on disk: where they are, how many records they have, and uploads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from service.datasets.layouts import (
    LAYOUTS,
    OWN_LAYOUTS,
    SNIPS_INTENTS,
    Located,
    absence,
    classes,
    describe,
    fetch_command,
    is_present,
    locate,
    own_names,
    read_intents,
    train_records,
)
from service.specs.catalog.datasets import (
    DATASETS,
    OWN,
    Cifar10,
    DatasetParams,
    Digits,
    DigitsParams,
    Imdb,
    Mnist,
    Snips,
    default_dataset,
)


def write(path: Path, content: bytes | str = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_idx(folder: Path, records: int, suffix: str = ".gz") -> None:
    for names in LAYOUTS["mnist"][0].parts.values():
        for name in names:
            header = b"\0\0\x08\x01" + records.to_bytes(4, "big") + bytes(records)
            write(folder / (name + suffix), gzip.compress(header) if suffix else header)


def write_snips(folder: Path, records: int) -> None:
    for part in ("train", "valid", "test"):
        write(folder / f"{part}.jsonl", "".join(json.dumps({"text": "a", "label": "x"}) + "\n" for _ in range(records)))


def test_layouts_of_a_data_set_differ_in_form_or_folder() -> None:
    assert LAYOUTS.keys() == DATASETS.keys()
    assert OWN_LAYOUTS.keys() == OWN.keys()
    for layouts in LAYOUTS.values():
        assert len({(layout.form, layout.folder) for layout in layouts}) == len(layouts) > 0


class TestLocate:
    def test_only_digits_are_always_present(self, tmp_path: Path) -> None:
        assert [name for name in DATASETS if is_present(name, tmp_path)] == ["digits"]

    def test_incomplete_data_set_is_absent(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "mnist", 3)
        assert is_present("mnist", tmp_path)
        (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
        assert not is_present("mnist", tmp_path)

    def test_first_layout_takes_precedence(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "MNIST/raw", 3, suffix="")
        located = locate("mnist", tmp_path)
        assert located is not None
        assert located.root == tmp_path / "MNIST/raw"
        write_idx(tmp_path / "mnist", 3)
        located = locate("mnist", tmp_path)
        assert located is not None
        assert located.root == tmp_path / "mnist"

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
    def test_locates_layout(self, name: str, form: str, files: list[str], tmp_path: Path) -> None:
        for file in files:
            write(tmp_path / file)
        located = locate(name, tmp_path)
        assert located is not None
        assert located.layout.form == form


class TestTrainRecords:
    def test_counts_digits(self, tmp_path: Path) -> None:
        assert train_records(Digits(), tmp_path) == 800
        assert train_records(Digits(params=DigitsParams(limit=100)), tmp_path) == 100
        assert train_records(Digits(params=DigitsParams(limit=5000)), tmp_path) == 800

    def test_absent_data_set_has_no_count(self, tmp_path: Path) -> None:
        assert train_records(Mnist(), tmp_path) is None

    @pytest.mark.parametrize("suffix", [".gz", ""])
    def test_counts_idx_files(self, suffix: str, tmp_path: Path) -> None:
        write_idx(tmp_path / "mnist", 300, suffix)
        assert train_records(Mnist(), tmp_path) == 270
        assert train_records(Mnist(params=DatasetParams(limit=20)), tmp_path) == 20

    def test_counts_npz(self, tmp_path: Path) -> None:
        (tmp_path / "cifar10").mkdir()
        np.savez(tmp_path / "cifar10/cifar10.npz", y_train=np.zeros(50, np.uint8))
        assert train_records(Cifar10(), tmp_path) == 45

    def test_counts_published_pickles(self, tmp_path: Path) -> None:
        for files in LAYOUTS["cifar10"][0].parts.values():
            for file in files:
                write(tmp_path / "cifar-10-batches-py" / file)
        assert train_records(Cifar10(), tmp_path) == 45_000

    def test_published_validation_set_reduces_no_training_records(self, tmp_path: Path) -> None:
        write_snips(tmp_path / "snips", 30)
        assert train_records(Snips(), tmp_path) == 30

    def test_counts_again_after_file_changed(self, tmp_path: Path) -> None:
        write_snips(tmp_path / "snips", 30)
        assert train_records(Snips(), tmp_path) == 30
        write_snips(tmp_path / "snips", 31)
        assert train_records(Snips(), tmp_path) == 31

    def test_counts_original_snips(self, tmp_path: Path) -> None:
        for intent in SNIPS_INTENTS:
            records = {intent: [{"data": [{"text": "play "}, {"text": "it"}]}] * 10}
            for file in (f"train_{intent}_full.json", f"validate_{intent}.json"):
                write(tmp_path / "2017-06-custom-intent-engines" / intent / file, json.dumps(records))
        assert train_records(Snips(), tmp_path) == 63

    def test_counts_reviews(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            for label in ("pos", "neg"):
                for number in range(10):
                    write(tmp_path / "aclImdb" / part / label / f"{number}_1.txt")
        assert train_records(Imdb(), tmp_path) == 18

    def test_image_folders_are_not_counted(self, tmp_path: Path) -> None:
        write(tmp_path / "imagenet/train/a/1.jpg")
        write(tmp_path / "imagenet/val/a/1.jpg")
        assert train_records(DATASETS["imagenet"](), tmp_path) is None


def test_reads_intents_in_either_encoding(tmp_path: Path) -> None:
    text = json.dumps({"PlayMusic": [{"data": [{"text": "play "}, {"text": "café"}]}]}, ensure_ascii=False)
    for encoding in ("utf-8", "latin-1"):
        write(tmp_path / "PlayMusic" / encoding, text.encode(encoding))
        assert read_intents(tmp_path / "PlayMusic" / encoding) == ["play café"]


def test_fetch_command_names_data_set() -> None:
    assert fetch_command("mnist") == "kotrain data fetch mnist"


class TestUploads:
    def add_upload(self, data_dir: Path, name: str) -> None:
        folder = data_dir / "own" / name
        folder.mkdir(parents=True)
        description = {"name": name, "kind": "table", "owner": "ada", "created_at": "2026-01-01T00:00:00Z"}
        description |= {
            "file_format": "csv",
            "size_bytes": 1,
            "sha256": "s",
            "content_sha256": "c",
            "classes": ["a", "b", "c"],
        }
        description |= {"shape": [2], "columns": ["x", "y"], "train_per_class": [8, 9, 10], "test_per_class": [2, 2, 2]}
        (folder / "dataset.json").write_text(json.dumps(description | {"warnings": []}))

    def test_lists_complete_uploads(self, tmp_path: Path) -> None:
        assert own_names(tmp_path) == []
        for name in ("tables/iris", "images/flowers"):
            self.add_upload(tmp_path, name)
        (tmp_path / "own/.arriving/tables/x").mkdir(parents=True)
        (tmp_path / "own/tables/half").mkdir()
        assert own_names(tmp_path) == ["images/flowers", "tables/iris"]
        assert is_present("tables/iris", tmp_path)
        assert not is_present("tables/half", tmp_path)
        write(tmp_path / "own/dataset.json", (tmp_path / "own/tables/iris/dataset.json").read_bytes())
        assert [describe(name, tmp_path) for name in ("tables/..", "tables/x\0", "digits", "../own")] == [None] * 4

    def test_counts_records_and_classes(self, tmp_path: Path) -> None:
        self.add_upload(tmp_path, "tables/iris")
        choice = default_dataset("tables/iris")
        assert train_records(choice, tmp_path) == 27 - 2
        assert classes(choice, tmp_path) == 3
        absent = default_dataset("tables/other")
        assert (train_records(absent, tmp_path), classes(absent, tmp_path)) == (None, 2)
        assert classes(Digits(), tmp_path) == 10

    def test_validation_set_has_at_least_one_record(self, tmp_path: Path) -> None:
        assert Located(OWN_LAYOUTS["tables"], tmp_path).validation_records(9) == 1

    def test_suggests_similar_name(self, tmp_path: Path) -> None:
        self.add_upload(tmp_path, "tables/iris")
        assert absence("tables/irs", tmp_path) == (
            "unknown data set 'tables/irs' (did you mean 'tables/iris'?); uploaded data sets: tables/iris"
        )
        assert absence("mnist", tmp_path) == "data set 'mnist' is not present; fetch it with: kotrain data fetch mnist"
