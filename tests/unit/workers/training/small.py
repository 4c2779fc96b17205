"""Small runs of every optimizer, kind of model and schedule in the catalog, and their data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from service.datasets.layouts import SNIPS_INTENTS
from service.specs.catalog import optimizers


def ko(**params: Any) -> dict[str, Any]:
    return {"name": "ko", "params": params}


BASES = list(optimizers.KO_PARAMS)
FORMS: dict[str, dict[str, Any]] = {
    "soft": {},
    "bounded": {"bounded": True},
    "hard": {"collision": "hard", "rate": 1.0},
    "none": {"collision": "none"},
    "in groups": {"group_size": 4},
    "with words": {"embeddings": True},
    "fading": {"fade": "cosine"},
}
OPTIMIZERS: dict[str, Any] = {
    **{name: name for name in optimizers.OPTIMIZERS},
    **{f"ko soft ({base})": ko(base=base) for base in BASES},
    **{f"ko {form} ({base})": ko(base=base, **FORMS[form]) for form in ("bounded", "hard") for base in ("adam", "sgd")},
    **{f"ko {form} (adam)": ko(**params) for form, params in FORMS.items()},
}

TASKS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits", "model": {"name": "mlp", "params": {"hidden": [8]}}, "batch_size": 64},
    "crops": {
        "dataset": {"name": "cifar10", "params": {"augment": True}},
        "model": {"name": "cnn", "params": {"channels": [4]}},
        "batch_size": 16,
    },
    "textcnn": {"dataset": "snips", "model": {"name": "textcnn", "params": {"embedding": 8, "channels": 8}}},
    "lstm": {"dataset": "snips", "model": {"name": "lstm", "params": {"hidden": 8, "dropout": 0.4}}},
    "transformer": {
        "dataset": "snips",
        "model": {"name": "transformer", "params": {"width": 8, "heads": 2, "feedforward": 16, "dropout": 0.3}},
    },
}
SCHEDULES: dict[str, Any] = {
    "constant": "constant",
    "cosine": {"name": "cosine", "params": {"warmup_steps": 3}},
    "linear": {"name": "linear", "params": {"final_fraction": 0.1}},
    "step": {"name": "step", "params": {"milestones": [0.3, 0.6]}},
}


def write_data(folder: Path) -> None:
    """Write 40 copies of one image, so that only crops and flips differ, and 60 texts of 8 words per part."""
    draw = np.random.default_rng(0)
    (folder / "cifar10").mkdir()
    image = draw.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    np.savez(
        folder / "cifar10/cifar10.npz",
        x_train=image.repeat(40, 0),
        y_train=draw.integers(0, 10, 40, dtype=np.uint8),
        x_test=draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8),
        y_test=np.arange(20, dtype=np.uint8) % 10,
    )
    (folder / "snips").mkdir()
    for part in ("train", "valid", "test"):
        records = [
            {"text": " ".join(f"w{word}" for word in draw.integers(0, 50, 8)), "label": label}
            for label in draw.choice(SNIPS_INTENTS, 60)
        ]
        (folder / f"snips/{part}.jsonl").write_text("\n".join(map(json.dumps, records)))
