"""The recipe of KO's measurements: train a small ReLU network on scikit-learn's digits.

Claim: two trainings of the same seed and split differ only in the optimizer. They start from the same weights and use
the same batches in the same order, so their results can be paired.

A split is a random partition of the 1797 records into 800 for training, 200 for validation and 797 for testing, given
by a seed; seed 0 is the split of the golden table. Pixels / 16; 64-N-N-10 ReLU, weights and biases multiplied by the
initial scale; batches of 64, the short last one kept; constant learning rate; evaluation after the last step.

The controls, which contain no KO, are `EDITS`: functions of the gradients that are applied before the step.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ko import KO, collisions, largest_eigenvalue, weight_correlation
from workers.training import controls

EPOCHS = 30
BATCH = 64
RECORDS, TRAIN, VALIDATION = 1797, 800, 200
GOLDEN_SPLIT = 0
CHANCE = 0.1
"""Score of a diverged training: chance level of ten classes."""

WORKERS = 2
MEASURE_EVERY = 20
"""Steps between two measurements of lambda_max(C), an eigenvalue problem of the size of the layer."""

BASES: dict[str, tuple[type[Optimizer], dict[str, float]]] = {"adam": (Adam, {}), "sgd": (SGD, {"momentum": 0.9})}

KO_FORMS: dict[str, Callable[[float], dict[str, Any]]] = {
    "none": lambda knob: {"collision": "none"},
    "soft": lambda gamma: {"collision": "soft", "gamma": gamma},
    "bounded": lambda gamma: {"collision": "soft", "gamma": gamma, "bounded": True},
    "hard": lambda rate: {"collision": "hard", "rate": rate},
}


@dataclass(frozen=True)
class Setting:
    """A training setting without seed and split.

    `form` is one of `KO_FORMS`, one of `EDITS`, "plain" (the base of torch itself) or "decay" (AdamW); `knob` is its
    gamma, rate, weight decay or penalty.
    """

    base: str
    lr: float
    form: str = "plain"
    knob: float = 0.0
    scale: float = 1.0
    width: int = 256
    epochs: int = EPOCHS

    @property
    def entry(self) -> tuple[float, str, str]:
        """Initial scale, base and form."""
        return self.scale, self.base, self.form


@dataclass(frozen=True)
class Run:
    """The results of one training. Accuracies are in [0, 1], as measured, even if the training diverged.

    `cpu_seconds` is the CPU time of its steps. `lambda_max` and `strength` (gamma times lambda_max, with the capped
    gamma in the bounded form) are means over the training for the second hidden layer; None unless `measured`.
    """

    setting: Setting
    seed: int
    split: int
    validation: float
    test: float
    correlation: float
    diverged: bool
    cpu_seconds: float
    lambda_max: float | None = None
    strength: float | None = None


class Task(NamedTuple):
    """The arguments of `train`."""

    setting: Setting
    seed: int
    split: int = GOLDEN_SPLIT
    measured: bool = False


class Part(NamedTuple):
    """Pixels (n, 64) and labels (n,)."""

    x: Tensor
    y: Tensor


@cache
def records() -> Part:
    """All 1797 records in the order of scikit-learn."""
    pixels, labels = load_digits(return_X_y=True)
    return Part(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels))


def partition(split: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the records for training (800,), validation (200,) and test (797,)."""
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(split))
    return order[:TRAIN], order[TRAIN : TRAIN + VALIDATION], order[TRAIN + VALIDATION :]


def data(split: int) -> tuple[Part, Part, Part]:
    """Training, validation and test part of one split."""
    x, y = records()
    train, validation, test = (Part(x[indices], y[indices]) for indices in partition(split))
    return train, validation, test


def network(seed: int, scale: float, width: int = 256) -> nn.Sequential:
    """The ReLU network with its initial weights and biases multiplied by `scale`."""
    torch.manual_seed(seed)
    layers = nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model


def batches(seed: int, epochs: int) -> Iterator[Tensor]:
    """Positions of each batch in the training part, from a new permutation in each epoch."""
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(TRAIN, generator=order).split(BATCH)


EDITS = {"noise": controls.noise, "orthogonal": controls.orthogonality, "centralized": controls.centralization}
"""The controls: each returns the change of the gradient of a weight matrix. They act where KO's collision does."""


def optimizer(setting: Setting, model: nn.Module, seed: int) -> Optimizer:
    """The optimizer of a setting, without the edit of a control."""
    base, options = BASES[setting.base]
    if setting.form in KO_FORMS:
        collision = KO_FORMS[setting.form](setting.knob)
        return KO(model.parameters(), lr=setting.lr, base=setting.base, seed=seed, **collision, **options)
    if setting.form == "decay":
        assert setting.base == "adam"
        return AdamW(model.parameters(), lr=setting.lr, weight_decay=setting.knob)
    assert setting.form == "plain" or setting.form in EDITS, setting.form
    return base(model.parameters(), lr=setting.lr, **options)


class Gauge:
    """Measure the collision of one weight matrix during training, and the CPU time of the measurements."""

    def __init__(self, weights: nn.Parameter, setting: Setting) -> None:
        self.weights, self.setting = weights, setting
        self.measurements: list[tuple[float, float]] = []  # (lambda_max, gamma * lambda_max)
        self.cpu_seconds = 0.0

    @torch.no_grad()
    def measure(self) -> None:
        """Measure; call it between backward and step."""
        start = time.process_time()
        w, g = collisions.unit_rows(self.weights), collisions.unit_rows(self.weights.grad)
        c = (w @ w.T) * (g @ g.T)  # (N, N)
        gamma = self.setting.knob if self.setting.form in ("soft", "bounded") else 0.0
        row_sum = float(c.abs().sum(dim=1).max())
        if self.setting.form == "bounded" and row_sum > 0:
            gamma = min(gamma, collisions.BOUND / row_sum)
        largest = float(largest_eigenvalue(self.weights, self.weights.grad))
        self.measurements.append((largest, gamma * largest))
        self.cpu_seconds += time.process_time() - start

    def means(self) -> tuple[float, float]:
        """Mean lambda_max and mean gamma * lambda_max, up to the divergence of a diverged training."""
        n = len(self.measurements)
        largest, products = zip(*self.measurements, strict=True)
        return math.fsum(largest) / n, math.fsum(products) / n


def train(setting: Setting, seed: int, split: int = GOLDEN_SPLIT, measured: bool = False) -> Run:
    """Train once; with `measured`, record lambda_max(C) of the second hidden layer.

    The training ends at the first loss that is not finite, after which no weight is finite.
    """
    training, validation, test = data(split)
    model = network(seed, setting.scale, setting.width)
    stepper = optimizer(setting, model, seed)
    edit, matrices = EDITS.get(setting.form), [p for p in model.parameters() if p.ndim == 2]
    # A separate generator. torch seeds it with the lower 32 bits only, so it starts in the same state as that of the
    # batches, but normal numbers and permutations are derived from it in different ways.
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(2**32 + seed))
    gauge = Gauge(model[2].weight, setting)
    start = time.process_time()
    for step, batch in enumerate(batches(seed, setting.epochs)):
        stepper.zero_grad()
        loss = nn.functional.cross_entropy(model(training.x[batch]), training.y[batch])
        loss.backward()
        if measured and step % MEASURE_EVERY == 0 and loss.isfinite():
            gauge.measure()
        if edit:
            with torch.no_grad():
                for p in matrices:
                    p.grad += edit(p, p.grad, setting.knob, draw)
        stepper.step()
        if not loss.isfinite():
            break
    cpu_seconds = time.process_time() - start - gauge.cpu_seconds
    return Run(
        setting,
        seed,
        split,
        accuracy(model, validation),
        accuracy(model, test),
        weight_correlation(model),
        not all(bool(p.isfinite().all()) for p in model.parameters()),
        cpu_seconds,
        *(gauge.means() if gauge.measurements else (None, None)),
    )


@torch.no_grad()
def accuracy(model: nn.Module, part: Part) -> float:
    """Share of the records whose largest output is that of their label."""
    return float((model(part.x).argmax(dim=1) == part.y).float().mean())


def train_all(tasks: Iterable[Task], workers: int = WORKERS) -> Iterator[Run]:
    """Run the tasks in order on `workers` processes with one thread each, or in this process if 0."""
    if not workers:
        yield from map(_train, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork after torch's threads have started can hang
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(_train, tasks)


def _train(task: Task) -> Run:
    return train(*task)
