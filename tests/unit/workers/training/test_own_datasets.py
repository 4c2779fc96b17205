"""Data sets that somebody registered, as the engine reads them."""

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


def described(folder: Path, kind: str, shape: list[int], content: str = "c") -> None:
    train, test = [10] * 4, [1] * 4
    about: dict[str, Any] = {"version": 1, "name": str(folder), "kind": kind, "owner": "ada"}
    about |= {"created_at": "2026-01-01T00:00:00Z", "file_format": "npz", "size_bytes": 1, "sha256": "s"}
    about |= {"content_sha256": content, "classes": ["a", "b", "c", "d"], "shape": shape, "columns": []}
    about |= {"train_per_class": train, "test_per_class": test, "warnings": []}
    (folder / "dataset.json").write_text(json.dumps(about))


def registered(data_dir: Path, name: str, x: np.ndarray, content: str = "c") -> None:
    folder = data_dir / "own" / name
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", x_train=x, y_train=LABELS, x_test=x[:4] + 1, y_test=LABELS[:4])
    described(folder, "image" if x.ndim == 4 else "table", list(x.shape[1:]), content)


def loaded(data_dir: Path, name: str, with_test: bool = True, **params: Any) -> tuple[Classification, datasets.Inputs]:
    choice = dataset_class(name).model_validate({"name": name, "params": params})
    task, inputs = datasets.load(datasets.Request(choice, data_dir, 8, 0, torch.device("cpu"), with_test))
    assert isinstance(task, Classification)
    return task, inputs


def of(source: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ((inputs, labels),) = source.batches(1000)
    return inputs, labels


def test_rows_are_scaled_by_those_that_train(tmp_path: Path) -> None:
    x = (DRAW.normal(size=(40, 3)) * [1, 1000, 0] + [0, 1e6, 5]).astype(np.float32)
    registered(tmp_path, "tables/t", x)
    task, inputs = loaded(tmp_path, "tables/t")
    assert (inputs.shape, inputs.classes, task.records) == ((3,), 4, 36)
    rows, _ = of(task._train)
    torch.testing.assert_close(rows.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    held_out, _ = of(task._validation)
    assert len(held_out) == 4
    assert held_out.mean(0).abs().max() > 0.01  # by the same numbers, not by its own
    assert models.mlp(MlpParams(hidden=(5,)), inputs)(rows).shape == (36, 4)


def test_channels_are_scaled_by_those_that_train(tmp_path: Path) -> None:
    x = DRAW.integers(0, 250, (40, 6, 5, 3), np.uint8)
    x[..., 2] = 7
    registered(tmp_path, "images/i", x)
    task, inputs = loaded(tmp_path, "images/i")
    assert (inputs.shape, inputs.classes) == ((3, 6, 5), 4)
    pixels, _ = of(task._train)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3), correction=0), torch.tensor([1.0, 1, 0]), atol=1e-4, rtol=0)


def test_another_split_seed_draws_other_records_and_keeps_the_test_part(tmp_path: Path) -> None:
    registered(tmp_path, "tables/t", np.arange(80, dtype=np.float32).reshape(40, 2))
    (one, _), (other, _) = loaded(tmp_path, "tables/t"), loaded(tmp_path, "tables/t", split_seed=1)
    assert not torch.equal(of(one._validation)[1], of(other._validation)[1])
    assert torch.equal(of(one._test)[1], of(other._test)[1])
    assert loaded(tmp_path, "tables/t", limit=10)[0].records == 10


def test_texts(tmp_path: Path) -> None:
    folder = tmp_path / "own/texts/t"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": f"w{row}\u2028 b", "label": row % 4}, ensure_ascii=False) for row in range(40)]
    for part in ("train", "test"):
        (folder / f"{part}.jsonl").write_text("\n".join(lines), "utf-8")
    described(folder, "text", [])
    task, inputs = loaded(tmp_path, "texts/t", max_length=5)
    assert (inputs.shape, inputs.classes, task.records) == ((5,), 4, 36)
    assert inputs.vocabulary == 36 + 1 + 2  # the words of the texts that train, `b`, padding and unknown


def test_the_hash_knows_files_and_registration(tmp_path: Path) -> None:
    x = np.zeros((40, 2), np.float32)
    hashes = []
    for name, content, shift in (("a", "c", 0), ("b", "c", 0), ("c", "other", 0), ("d", "c", 1)):
        registered(tmp_path, f"tables/{name}", x + shift, content)
        hashes.append(loaded(tmp_path, f"tables/{name}", with_test=False)[0].data_hash)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(AbsentData, match="'tables/t' is not in the data folder"):
        loaded(tmp_path, "tables/t")
