"""The engine on the real data sets in KOTRAIN_DATA_DIR, or in `../shared/data` beside the checkout."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.layouts import SNIPS_INTENTS, is_present, locate, train_records
from service.specs.catalog.datasets import DATASETS
from service.specs.states import Reason
from service.specs.training import TrainSpec
from tests.one_thread import one_thread  # noqa: F401 (an autouse fixture)
from tests.real_data import DATA_DIR, read, real
from workers.training.loop import train
from workers.training.readers import Images, Texts


@pytest.mark.parametrize(
    ("dataset", "model", "optimizer", "steps", "params"),
    [
        ("mnist", "mlp", "adam", 40, {"limit": 2560}),
        ("cifar10", "cnn", "adamw", 30, {"limit": 640, "augment": True}),
        ("cifar100", "mlp", "ko", 40, {"limit": 640}),
        ("snips", "textcnn", "adam", 120, {}),
        ("imdb", "textcnn", "adam", 24, {"limit": 512, "max_length": 64}),
    ],
)
def test_training_lowers_the_loss(dataset: str, model: str, optimizer: str, steps: int, params: dict[str, Any]) -> None:
    real(dataset)
    small = {"textcnn": {"embedding": 32, "channels": 16, "dropout": 0.0}, "cnn": {"channels": [8, 16]}}.get(model, {})
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": dataset, "params": params},
            "model": {"name": model, "params": small},
            "optimizer": optimizer,
            "budget": {"steps": steps},
            "log_every_steps": 1,
            "device": "cpu",
            "evaluate_test": dataset != "imdb",
        }
    )
    losses: list[float] = []
    summary = train(
        spec,
        lambda step, metrics: losses.extend([metrics["train_loss"]] if "train_loss" in metrics else []),
        lambda: None,
        data_dir=DATA_DIR,
    )
    assert summary.reason is Reason.COMPLETED
    assert sum(losses[-5:]) < sum(losses[:5])
    assert ("test_accuracy" in summary.metrics) == spec.evaluate_test
    if dataset in ("mnist", "snips"):
        assert summary.metrics["test_accuracy"] > 0.7


@pytest.mark.parametrize(("name", "records"), [("mnist", 54_000), ("snips", 13_084), ("imdb", 22_500)])
def test_training_parts_have_the_documented_size(name: str, records: int) -> None:
    real(name)
    assert train_records(DATASETS[name](), DATA_DIR) == records


def equal_images(a: Images, b: Images) -> bool:
    return np.array_equal(a.pixels, b.pixels) and np.array_equal(a.labels, b.labels) and a.sha256() == b.sha256()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_loads_equal_from_its_published_layout(name: str, tmp_path: Path) -> None:
    whole = read(name, real(name), "train")
    few = Images(whole.pixels[:50], whole.labels[:50])
    if name == "cifar10":
        folder, key, files = (
            "cifar-10-batches-py",
            "labels",
            {f"data_batch_{i + 1}": slice(10 * i, 10 * i + 10) for i in range(5)},
        )
        files["test_batch"] = slice(0, 10)
    else:
        folder, key, files = "cifar-100-python", "fine_labels", {"train": slice(0, 50), "test": slice(0, 10)}
    (tmp_path / folder).mkdir()
    for file, rows in files.items():
        batch = {"data": few.pixels[rows].reshape(-1, 3072), key: few.labels[rows].tolist(), "filenames": ["x.png"]}
        (tmp_path / folder / file).write_bytes(pickle.dumps(batch, protocol=3))
    located = locate(name, tmp_path)
    assert located is not None
    assert equal_images(read(name, located, "train"), few)
    assert len(read(name, located, "test").labels) == 10


def test_mnist_loads_equal_from_torchvisions_layout(tmp_path: Path) -> None:
    source = real("mnist")
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for path in source.root.glob("*.gz"):
        (tmp_path / "MNIST/raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    located = locate("mnist", tmp_path)
    assert located is not None
    assert equal_images(read("mnist", located, "test"), read("mnist", source, "test"))


def in_order(texts: Texts) -> list[tuple[str, int]]:
    return sorted(zip(texts.texts, texts.labels.tolist(), strict=True))


def test_imdb_loads_equal_from_its_published_layout(tmp_path: Path) -> None:
    whole = read("imdb", real("imdb"), "train")
    rows = [*range(5), *range(len(whole.texts) - 5, len(whole.texts))]  # both labels: the file is sorted by label
    few = Texts([whole.texts[row] for row in rows], whole.labels[rows])
    for part in ("train", "test"):
        for number, (text, label) in enumerate(zip(few.texts, few.labels, strict=True)):
            path = tmp_path / "aclImdb" / part / ("neg", "pos")[label] / f"{number}_1.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    located = locate("imdb", tmp_path)
    assert located is not None
    loaded = read("imdb", located, "train")
    assert set(few.labels) == {0, 1}
    assert in_order(loaded) == in_order(few)
    assert loaded.sha256() == few.sha256()


@pytest.mark.parametrize("form", ["intents", "slots"])
def test_snips_loads_equal_from_its_other_layouts(form: str, tmp_path: Path) -> None:
    whole = read("snips", real("snips"), "train")
    few = Texts(whole.texts[:200], whole.labels[:200])
    records = list(zip(few.texts, few.labels.tolist(), strict=True))
    if form == "slots":
        for part in ("train", "valid", "test"):
            (tmp_path / "snips" / part).mkdir(parents=True)
            lines = {"seq.in": few.texts, "label": [SNIPS_INTENTS[label] for label in few.labels]}
            for file, content in lines.items():
                (tmp_path / "snips" / part / file).write_text("\n".join(content) + "\n", "utf-8")
    else:
        for label, intent in enumerate(SNIPS_INTENTS):
            folder = tmp_path / "2017-06-custom-intent-engines" / intent
            folder.mkdir(parents=True)
            data = [{"data": [{"text": text[:4]}, {"text": text[4:]}]} for text, own in records if own == label]
            for file in (f"train_{intent}_full.json", f"validate_{intent}.json"):
                (folder / file).write_text(json.dumps({intent: data}), "utf-8")
    assert is_present("snips", tmp_path)
    located = locate("snips", tmp_path)
    assert located is not None
    assert located.layout.form == form
    loaded = read("snips", located, "train")
    assert in_order(loaded) == in_order(few)
    assert loaded.sha256() == few.sha256()
