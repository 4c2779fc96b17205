"""The jobs of the fault tests: one or two seconds each, on different code paths of the engine."""

from __future__ import annotations

from typing import Any

MLP = {"name": "mlp", "params": {"hidden": [32]}}
_COMMON: dict[str, Any] = {
    "dataset": {"name": "digits", "params": {"split": "golden"}},
    "model": MLP,
    "eval_every_steps": 100,
    "max_failures": 100,
}

SPECS: dict[str, dict[str, Any]] = {
    "adam": {
        "optimizer": "adam",
        "schedule": {"name": "cosine", "params": {"warmup_steps": 100}},
        "budget": {"steps": 1600},
        "target": {"metric": "val_accuracy", "value": 0.8},
    },
    "ko soft": {
        "optimizer": {"name": "ko", "params": {"collision": "soft", "group_size": 8}},
        "budget": {"steps": 600},
        "diagnostics_every_steps": 200,
    },
    "sgd": {
        "optimizer": {"name": "sgd", "params": {"lr": 0.1, "momentum": 0.9}},
        "schedule": {"name": "step", "params": {}},
        "budget": {"epochs": 200},
        "eval_every_steps": None,
        "batch_size": 60,
        "seed": 3,
    },
    "ko hard": {
        "optimizer": {"name": "ko", "params": {"collision": "hard", "fade": "cosine"}},
        "budget": {"steps": 700},
        "gradient_clip": 1.0,
    },
    "muon": {"optimizer": "muon", "schedule": "linear", "budget": {"steps": 900}, "seed": 5},
    "cnn": {
        "model": {"name": "cnn", "params": {"channels": [8, 8]}},
        "optimizer": "nadamw",
        "budget": {"steps": 600},
        "evaluate_test": False,
    },
    "stops at target": {
        "optimizer": "rmsprop",
        "budget": {"steps": 5000},
        "eval_every_steps": 50,
        "target": {"metric": "val_accuracy", "value": 0.94},
        "stop_at_target": True,
    },
    "bf16": {"optimizer": "lion", "precision": "bf16", "budget": {"steps": 900}},
    "long": {"optimizer": "adam", "budget": {"steps": 6000}, "eval_every_steps": 1000},
    "tiny": {"optimizer": "adam", "budget": {"steps": 20}},
}
SPECS = {name: _COMMON | spec for name, spec in SPECS.items()}

TOO_LARGE = SPECS["tiny"] | {"model": {"name": "mlp", "params": {"hidden": [30_000, 30_000]}}}
"""3.6 GB of weights alone."""
