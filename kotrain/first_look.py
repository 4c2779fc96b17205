"""The study `first-look`: the reference table of docs/ko.md, and what is left of KO's lead in it once Adam is tuned.

Data, network and budget are that table's: scikit-learn's digits in its golden split (800 train, 200 validation,
797 test), 64-256-256-10 ReLU, batches of 64, 30 epochs, constant learning rate, accuracy of the last step's weights.
"""

from __future__ import annotations

from typing import Any

from service.answers import GroupView

EPOCHS, SEEDS = 30, 5
"""What the reference table is for."""

INIT_SCALES = {"ordinary": 1.0, "condensed": 0.1}
"""Task -> what the network's initial weights and biases are multiplied by."""

FIXED_RATE = 1e-3
RATES = (3e-4, FIXED_RATE, 3e-3, 1e-2)
"""The grid that a tuned learning rate is chosen from."""

REFERENCE: dict[str, dict[str, dict[float, float]]] = {
    "ordinary": {
        "Adam": dict(zip(RATES, (0.9553, 0.9624, 0.9651, 0.9614), strict=True)),
        "KO soft": {FIXED_RATE: 0.9689},
        "KO bounded": {FIXED_RATE: 0.9644},
        "KO hard": dict(zip(RATES, (0.9521, 0.9641, 0.9676, 0.9726), strict=True)),
        "SGD": {0.1: 0.9671},
    },
    "condensed": {
        "Adam": dict(zip(RATES, (0.8550, 0.9205, 0.9365, 0.9496), strict=True)),
        "KO soft": {FIXED_RATE: 0.9669},
        "KO bounded": {FIXED_RATE: 0.9325},
        "KO hard": dict(zip(RATES, (0.8529, 0.9338, 0.9531, 0.9666), strict=True)),
        "SGD": {0.1: 0.9496},
    },
}
"""Mean test accuracy over seeds 0 to 4 by task, optimizer and learning rate, from the table of docs/ko.md."""

TOLERANCE = 0.01
"""Largest distance of a mean from the reference table, unless its own spread over seeds is wider."""


def first_look(epochs: int = EPOCHS, seeds: int = SEEDS, tuning_seeds: int = 5) -> dict[str, Any]:
    """The comparison to ask for. Up to 100 seeds: the tuning seeds, from 100 on, are others than the reported ones, so
    that the choice of a rate owes nothing to the runs it is judged by."""
    soft = {"base": "adam", "collision": "soft", "gamma": 0.1}
    hard = {"base": "adam", "collision": "hard", "rate": 0.5}
    fixed, tuned = {"lr": FIXED_RATE}, {"lr": {"choice": list(RATES)}}
    common = {
        "dataset": {"name": "digits", "params": {"split": "golden"}},
        "schedule": "constant",
        "budget": {"epochs": epochs},
        "batch_size": 64,
        "device": "cpu",
    }
    return {
        "name": "first-look",
        "tasks": [
            {"label": label, "model": {"name": "mlp", "params": {"hidden": [256, 256], "init_scale": scale}}, **common}
            for label, scale in INIT_SCALES.items()
        ],
        "optimizers": [
            {"label": "Adam", "name": "adam", "params": fixed},
            {"label": "KO soft", "name": "ko", "params": {**soft, "bounded": False, **fixed}},
            {"label": "KO bounded", "name": "ko", "params": {**soft, "bounded": True, **fixed}},
            {"label": "KO hard", "name": "ko", "params": {**hard, **fixed}},
            {"label": "SGD", "name": "sgd", "params": {"momentum": 0.9, "lr": 0.1}},
            {"label": "Adam tuned", "name": "adam", "space": tuned},
            {"label": "KO hard tuned", "name": "ko", "params": hard, "space": tuned},
        ],
        "seeds": seeds,
        "tuning": {"trials": len(RATES), "method": "grid", "seeds": tuning_seeds, "first_seed": 100},
        "metric": "test_accuracy",
        "tags": {"study": "first-look"},
    }


def rate(group: GroupView) -> float:
    """The learning rate, given or chosen."""
    return float(group.optimizer["params"]["lr"])


def reference(task: str, group: GroupView) -> float:
    """The mean of the reference table for a group of this task."""
    return REFERENCE[task][group.label.removesuffix(" tuned")][rate(group)]


def agrees(task: str, group: GroupView) -> bool:
    """Whether the mean is what the reference table says.

    Hard collisions draw other random numbers here than they did there, and at a learning rate where one seed in five
    goes astray a mean of five can be further off than the tolerance: then its own interval has to hold it.
    """
    expected = reference(task, group)
    if group.mean is None:
        return False
    return abs(group.mean - expected) <= TOLERANCE or (
        group.interval is not None and group.interval[0] <= expected <= group.interval[1]
    )
