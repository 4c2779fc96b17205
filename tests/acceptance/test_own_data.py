"""Uploaded data from the file to a trained model, with a real worker: images, a table, texts."""

import io
import json
from zipfile import ZipFile

import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_iris

from kotrain import Client, Conflict
from service.config import settings
from service.datasets.layouts import SNIPS_INTENTS
from tests.acceptance.lab import Lab, running_worker
from tests.real_data import real
from workers.training.readers import read_intent_lines

ADAM = {"name": "adam", "params": {"lr": 0.005}}


@pytest.fixture(scope="module")
def worker(schema, tmp_path_factory):
    """A worker that shares its data folder with this process's API."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTRAIN_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        settings.cache_clear()
        with running_worker() as worker:
            yield worker
    settings.cache_clear()


@pytest.fixture
def lab(worker, api):
    return Lab(api)


@pytest.fixture
def client(worker, api):
    return Client(http=api)


def digit_images(path):
    """Write 600 of scikit-learn's digits as PNG files in class folders."""
    digits = load_digits()
    with ZipFile(path, "w") as archive:
        for row in range(600):
            file = io.BytesIO()
            Image.fromarray((digits.images[row] * 15).astype("uint8")).save(file, "PNG")
            archive.writestr(f"digits/{digits.target[row]}/{row}.png", file.getvalue())
    return path


def iris_table(path):
    """Write Fisher's 150 irises, one column in other units, so that training needs scaled columns."""
    iris = load_iris()
    rows = [
        f"{a},{b},{1e6 + 1000 * c},{d},{iris.target_names[label]}"
        for (a, b, c, d), label in zip(iris.data, iris.target, strict=True)
    ]
    path.write_text("\n".join(["a,b,c,d,species", *rows]))
    return path


def snips_lines(path):
    """Write 1,400 real sentences of seven intents."""
    texts = read_intent_lines(real("snips").files("train"), "train")
    records = zip(texts.texts[::9], texts.labels[::9].tolist(), strict=True)
    path.write_text("".join(json.dumps({"text": text, "label": SNIPS_INTENTS[k]}) + "\n" for text, k in records))
    return path


def test_trains_on_uploaded_images(client, lab, tmp_path):
    dataset = client.add_dataset(digit_images(tmp_path / "digits.zip"), "handwriting")
    assert (dataset.name, dataset.shape, dataset.records) == ("images/handwriting", [1, 8, 8], 480)
    job = {"dataset": dataset.name, "optimizer": ADAM, "budget": {"epochs": 12}, "batch_size": 32}
    models = [{"name": "cnn", "params": {"channels": [16, 32]}}, {"name": "mlp", "params": {"hidden": [64]}}]
    ids = [lab.submit(job, model=model) for model in models]
    with pytest.raises(Conflict, match="is used by"):
        client.remove_dataset(dataset.name)
    for ended in map(lab.ended, ids):
        assert ended["status"] == "succeeded", ended["message"]
        assert ended["environment"]["data_hash"]
        assert ended["summary"]["metrics"]["test_accuracy"] > 0.8  # ten classes: guessing gives 0.1
    client.remove_dataset(dataset.name)
    assert dataset.name not in {listed.name for listed in client.datasets()}


def test_trains_on_an_uploaded_table(client, lab, tmp_path):
    dataset = client.add_dataset(iris_table(tmp_path / "iris.csv"), "iris", label="species")
    assert (dataset.name, dataset.columns, dataset.test_per_class) == (
        "tables/iris",
        ["a", "b", "c", "d"],
        [10, 10, 10],
    )
    model = {"name": "mlp", "params": {"hidden": [32]}}
    ended = lab.ended(
        lab.submit(
            {"dataset": dataset.name, "model": model, "optimizer": ADAM, "budget": {"epochs": 60}, "batch_size": 16}
        )
    )
    assert ended["status"] == "succeeded", ended["message"]
    assert ended["summary"]["metrics"]["test_accuracy"] > 0.8


def test_trains_on_uploaded_texts(client, lab, tmp_path):
    dataset = client.add_dataset(snips_lines(tmp_path / "sentences.jsonl"), "snips-sample")
    assert (dataset.name, dataset.class_names) == ("texts/snips-sample", sorted(SNIPS_INTENTS))
    model = {"name": "textcnn", "params": {"embedding": 32, "channels": 16}}
    job = {"dataset": dataset.name, "model": model, "optimizer": ADAM, "budget": {"epochs": 4}, "batch_size": 32}
    ended = lab.ended(lab.submit(job))
    assert ended["status"] == "succeeded", ended["message"]
    assert ended["summary"]["metrics"]["test_accuracy"] > 0.7  # seven intents: guessing gives 0.14
