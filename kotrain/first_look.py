"""The study `first-look`: the reference table of docs/ko.md, and KO's lead in it once Adam is tuned as well.

Data, network and budget are those of the table: scikit-learn's digits in its golden split (800 train, 200 validation,
797 test), 64-256-256-10 ReLU, batches of 64, 30 epochs, constant learning rate, accuracy of the last step's weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from service.comparisons.answers import GroupView

EPOCHS, SEEDS = 30, 5
"""Of the reference table."""

INIT_SCALES = {"ordinary": 1.0, "condensed": 0.1}
"""Task -> factor of the initial weights and biases."""

FIXED_RATE = 1e-3
RATES = (3e-4, FIXED_RATE, 3e-3, 1e-2)
"""The grid for tuned learning rates."""


class Reference(NamedTuple):
    """Test accuracy of one optimizer and learning rate in the reference table, over seeds 0 to 4."""

    mean: float
    sd: float
    """With ddof 0."""


def _by_rate(*cells: tuple[float, float]) -> dict[float, Reference]:
    return {rate: Reference(*cell) for rate, cell in zip(RATES, cells, strict=True)}


REFERENCE: dict[str, dict[str, dict[float, Reference]]] = {
    "ordinary": {
        "Adam": _by_rate((0.9553, 0.0043), (0.9624, 0.0018), (0.9651, 0.0030), (0.9614, 0.0153)),
        "KO soft": {FIXED_RATE: Reference(0.9689, 0.0029)},
        "KO bounded": {FIXED_RATE: Reference(0.9644, 0.0019)},
        "KO hard": _by_rate((0.9521, 0.0033), (0.9641, 0.0023), (0.9676, 0.0030), (0.9726, 0.0218)),
        "SGD": {0.1: Reference(0.9671, 0.0027)},
    },
    "condensed": {
        "Adam": _by_rate((0.8550, 0.0042), (0.9205, 0.0060), (0.9365, 0.0090), (0.9496, 0.0092)),
        "KO soft": {FIXED_RATE: Reference(0.9669, 0.0016)},
        "KO bounded": {FIXED_RATE: Reference(0.9325, 0.0042)},
        "KO hard": _by_rate((0.8529, 0.0039), (0.9338, 0.0049), (0.9531, 0.0026), (0.9666, 0.0085)),
        "SGD": {0.1: Reference(0.9496, 0.0085)},
    },
}
"""By task, optimizer and learning rate, from the table of docs/ko.md."""

TOLERANCE = 0.01
"""Largest accepted deviation of a mean from the reference table, unless both intervals are wider."""
T_OF_FOUR = 2.776
"""The 97.5 % quantile of Student's t with 4 degrees of freedom: the table's means are over 5 seeds."""


def first_look(epochs: int = EPOCHS, seeds: int = SEEDS, tuning_seeds: int = 5) -> dict[str, Any]:
    """The body of the comparison request.

    At most 100 seeds: tuning uses seeds from 100 on, so that no final run takes part in the choice of a rate.
    """
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
    """The learning rate of a group, fixed or chosen."""
    return float(group.optimizer["params"]["lr"])


def reference(task: str, group: GroupView) -> Reference:
    """The entry of the reference table for a group of this task."""
    return REFERENCE[task][group.label.removesuffix(" tuned")][rate(group)]


def agrees(task: str, group: GroupView) -> bool:
    """Whether the mean agrees with the reference table.

    At learning rates that make training chaotic, rounding differences between CPUs lead to different runs from the same
    seeds, and two means of five may differ by more than the tolerance. Such a deviation is accepted if it lies within
    the 95 % interval of the difference (with the smallest degrees of freedom possible in Welch's test).
    """
    expected = reference(task, group)
    if group.mean is None:
        return False
    deviation = abs(group.mean - expected.mean)
    if deviation <= TOLERANCE or group.interval is None:
        return deviation <= TOLERANCE
    half_width = (group.interval[1] - group.interval[0]) / 2
    reference_half_width = T_OF_FOUR * expected.sd / math.sqrt(SEEDS - 1)
    return deviation <= math.hypot(half_width, reference_half_width)
