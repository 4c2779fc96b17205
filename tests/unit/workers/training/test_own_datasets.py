"""Uploaded data sets as the engine reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.specs.catalog.datasets import dataset_class
from service.specs.catalog.models import MlpParams
from workers.training import datasets, models
from workers.training.failures import AbsentData
from workers.training.tasks import Classification

LABELS = np.arange(40) % 4
DRAW = np.random.default_rng(0)


def write_description(folder: Path, kind: str, shape: list[int], content: str = "c") -> None:
    train, test = [10] * 4, [1] * 4
    description: dict[str, Any] = {"version": 1, "name": str(folder), "kind": kind, "owner": "ada"}
    description |= {"created_at": "2026-01-01T00:00:00Z", "file_format": "npz", "size_bytes": 1, "sha256": "s"}
    description |= {"content_sha256": content, "classes": ["a", "b", "c", "d"], "shape": shape, "columns": []}
    description |= {"train_per_class": train, "test_per_class": test, "warnings": []}
    (folder / "dataset.json").write_text(json.dumps(description))


def write_dataset(data_dir: Path, name: str, x: np.ndarray, content: str = "c") -> None:
    folder = data_dir / "own" / name
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", x_train=x, y_train=LABELS, x_test=x[:4] + 1, y_test=LABELS[:4])
    write_description(folder, "image" if x.ndim == 4 else "table", list(x.shape[1:]), content)


def load(data_dir: Path, name: str, with_test: bool = True, **params: Any) -> tuple[Classification, datasets.Inputs]:
    choice = dataset_class(name).model_validate({"name": name, "params": params})
    task, inputs = datasets.load(datasets.Request(choice, data_dir, 8, 0, torch.device("cpu"), with_test))
    assert isinstance(task, Classification)
    return task, inputs


def only_batch(source: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ((inputs, labels),) = source.batches(1000)
    return inputs, labels


def test_training_rows_determine_scale(tmp_path: Path) -> None:
    x = (DRAW.normal(size=(40, 3)) * [1, 1000, 0] + [0, 1e6, 5]).astype(np.float32)
    write_dataset(tmp_path, "tables/t", x)
    task, inputs = load(tmp_path, "tables/t")
    assert (inputs.shape, inputs.classes, task.records) == ((3,), 4, 36)
    rows, _ = only_batch(task._train)
    torch.testing.assert_close(rows.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    held_out, _ = only_batch(task._validation)
    assert len(held_out) == 4
    assert held_out.mean(0).abs().max() > 0.01  # scaled by the training rows, not by its own
    assert models.mlp(MlpParams(hidden=(5,)), inputs)(rows).shape == (36, 4)


@pytest.mark.parametrize("column", [LABELS * 8.0 + 1.7e9, LABELS * 1e-40, np.where(LABELS < 2, -1.7e308, 1.7e308)])
def test_columns_are_scaled_in_64_bits(tmp_path: Path, column: np.ndarray) -> None:
    write_dataset(tmp_path, "tables/t", np.stack([column, DRAW.normal(size=40)], 1))
    rows, _ = only_batch(load(tmp_path, "tables/t")[0]._train)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert len(rows[:, 0].unique()) == len(np.unique(column))


def test_training_images_determine_scale_of_channels(tmp_path: Path) -> None:
    x = DRAW.integers(0, 250, (40, 6, 5, 3), np.uint8)
    x[..., 2] = 7
    write_dataset(tmp_path, "images/i", x)
    task, inputs = load(tmp_path, "images/i")
    assert (inputs.shape, inputs.classes) == ((3, 6, 5), 4)
    pixels, _ = only_batch(task._train)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3), correction=0), torch.tensor([1.0, 1, 0]), atol=1e-4, rtol=0)


def test_split_seed_changes_validation_and_keeps_test_set(tmp_path: Path) -> None:
    write_dataset(tmp_path, "tables/t", np.arange(80, dtype=np.float32).reshape(40, 2))
    (first, _), (second, _) = load(tmp_path, "tables/t"), load(tmp_path, "tables/t", split_seed=1)
    assert not torch.equal(only_batch(first._validation)[1], only_batch(second._validation)[1])
    assert torch.equal(only_batch(first._test)[1], only_batch(second._test)[1])
    assert load(tmp_path, "tables/t", limit=10)[0].records == 10


def test_reads_texts(tmp_path: Path) -> None:
    folder = tmp_path / "own/texts/t"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": f"w{row}\u2028 b", "label": row % 4}, ensure_ascii=False) for row in range(40)]
    for part in ("train", "test"):
        (folder / f"{part}.jsonl").write_text("\n".join(lines), "utf-8")
    write_description(folder, "text", [])
    task, inputs = load(tmp_path, "texts/t", max_length=5)
    assert (inputs.shape, inputs.classes, task.records) == ((5,), 4, 36)
    assert inputs.vocabulary == 36 + 1 + 2  # the words of the training texts, `b`, padding and unknown


def test_hash_depends_on_files_and_registration(tmp_path: Path) -> None:
    x = np.zeros((40, 2), np.float32)
    hashes = []
    for name, content, shift in (("a", "c", 0), ("b", "c", 0), ("c", "other", 0), ("d", "c", 1)):
        write_dataset(tmp_path, f"tables/{name}", x + shift, content)
        hashes.append(load(tmp_path, f"tables/{name}", with_test=False)[0].data_hash)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_missing_data_set_raises_absent_data(tmp_path: Path) -> None:
    with pytest.raises(AbsentData, match="'tables/t' is not in the data folder"):
        load(tmp_path, "tables/t")
