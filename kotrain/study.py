"""The study that `kotrain demo` runs: the reference table of docs/ko.md, and what is left of it once Adam is tuned.

Data, network and budget are that table's: scikit-learn's digits in its golden split (800 train, 200 validation,
797 test), 64-256-256-10 ReLU, batches of 64, 30 epochs, constant learning rate, accuracy of the last step's weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from service.answers import CompareAnswer, GroupView
from service.schemas import JobView
from service.spec import JobStatus

DATASET, MODEL = "digits", "mlp"
INITS = {"ordinary": 1.0, "condensed": 0.1}
"""Name -> `init_scale`, which multiplies the network's initial weights and biases."""

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""The grid that a tuned learning rate is chosen from."""

TOLERANCE = 0.01
"""Largest distance of a mean from the reference table, unless its own spread over seeds is wider."""


@dataclass(frozen=True)
class Plan:
    """How much of it to run. The tuning seeds, from 100 on, are others than the reported ones, from 0 on, so that the
    choice of a rate owes nothing to the runs it is judged by."""

    epochs: int = 30
    seeds: int = 5
    tuning_seeds: int = 5

    @property
    def is_reference(self) -> bool:
        """Whether the reference table says what has to come out."""
        return (self.epochs, self.seeds) == (30, 5)


@dataclass(frozen=True)
class Candidate:
    """An optimizer under study, without its learning rate."""

    title: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def at(self, lr: float) -> dict[str, Any]:
        """The optimizer of a spec."""
        return {"name": self.name, "params": {**self.params, "lr": lr}}


ADAM = Candidate("Adam", "adam")
SOFT = Candidate("KO soft", "ko", {"base": "adam", "collision": "soft", "gamma": 0.1, "bounded": False})
BOUNDED = Candidate("KO bounded", "ko", {"base": "adam", "collision": "soft", "gamma": 0.1, "bounded": True})
HARD = Candidate("KO hard", "ko", {"base": "adam", "collision": "hard", "rate": 0.5})
SGD = Candidate("SGD", "sgd", {"momentum": 0.9})

FIXED_RATE = 1e-3
FIXED = {ADAM: FIXED_RATE, SOFT: FIXED_RATE, BOUNDED: FIXED_RATE, HARD: FIXED_RATE, SGD: 0.1}
TUNED = (ADAM, HARD)

REFERENCE = {
    "ordinary": {
        ADAM: dict(zip(RATES, (0.9553, 0.9624, 0.9651, 0.9614), strict=True)),
        HARD: dict(zip(RATES, (0.9521, 0.9641, 0.9676, 0.9726), strict=True)),
        SOFT: {FIXED_RATE: 0.9689},
        BOUNDED: {FIXED_RATE: 0.9644},
        SGD: {0.1: 0.9671},
    },
    "condensed": {
        ADAM: dict(zip(RATES, (0.8550, 0.9205, 0.9365, 0.9496), strict=True)),
        HARD: dict(zip(RATES, (0.8529, 0.9338, 0.9531, 0.9666), strict=True)),
        SOFT: {FIXED_RATE: 0.9669},
        BOUNDED: {FIXED_RATE: 0.9325},
        SGD: {0.1: 0.9496},
    },
}
"""Mean test accuracy over seeds 0 to 4, from the table of docs/ko.md."""


@dataclass(frozen=True)
class Arm:
    """A candidate at a learning rate, from an initialization."""

    init: str
    candidate: Candidate
    lr: float

    @property
    def title(self) -> str:
        """Readable name."""
        return f"{self.candidate.title} {self.lr:g}"

    @property
    def reference(self) -> float:
        """The mean of the reference table."""
        return REFERENCE[self.init][self.candidate][self.lr]


@dataclass(frozen=True)
class Run:
    """One job of the study. A tuning run has its own seed and never reads the test set."""

    arm: Arm
    seed: int
    tuning: bool

    def spec(self, epochs: int) -> dict[str, Any]:
        """The body of its submission."""
        return {
            "dataset": {"name": DATASET, "params": {"split": "golden"}},
            "model": {"name": MODEL, "params": {"hidden": [256, 256], "init_scale": INITS[self.arm.init]}},
            "optimizer": self.arm.candidate.at(self.arm.lr),
            "schedule": "constant",
            "budget": {"epochs": epochs},
            "batch_size": 64,
            "seed": self.seed,
            "device": "cpu",
            "evaluate_test": not self.tuning,
            "tags": {"study": "demo", "init": self.arm.init, "part": "tuning" if self.tuning else "report"},
        }


def tuning_runs(plan: Plan) -> list[Run]:
    """Every rate of the grid for the candidates that are tuned."""
    arms = [Arm(init, candidate, lr) for init in INITS for candidate in TUNED for lr in RATES]
    return [Run(arm, 100 + number, True) for arm in arms for number in range(plan.tuning_seeds)]


def reported_runs(plan: Plan, arms: Iterable[Arm]) -> list[Run]:
    """Each arm with the reported seeds."""
    return [Run(arm, seed, False) for arm in arms for seed in range(plan.seeds)]


def fixed_arms() -> list[Arm]:
    """The candidates at the rates that are given, not chosen."""
    return [Arm(init, candidate, lr) for init in INITS for candidate, lr in FIXED.items()]


def validation(ended: Mapping[Run, JobView]) -> dict[Arm, tuple[float, float]]:
    """Mean validation accuracy and loss of the last step, for each tuned arm whose runs all succeeded."""
    scores: dict[Arm, tuple[float, float]] = {}
    for arm in {run.arm: None for run in ended if run.tuning}:
        metrics = [_metrics(job) for run, job in ended.items() if run.tuning and run.arm == arm]
        found = [
            (accuracy, loss)
            for one in metrics
            if (accuracy := one.get("val_accuracy")) is not None and (loss := one.get("val_loss")) is not None
        ]
        if len(found) == len(metrics):
            accuracies, losses = zip(*found, strict=True)
            scores[arm] = fmean(accuracies), fmean(losses)
    return scores


def choose(scores: Mapping[Arm, tuple[float, float]]) -> dict[tuple[str, Candidate], Arm]:
    """For each initialization and tuned candidate the rate with the best mean validation accuracy.

    Ties, frequent with 200 validation records, go to the lower mean validation loss. Raises ValueError where no rate
    has a score.
    """

    def accuracy_then_loss(arm: Arm) -> tuple[float, float]:
        accuracy, loss = scores[arm]
        return accuracy, -loss

    return {
        (init, candidate): max(
            (arm for arm in scores if (arm.init, arm.candidate) == (init, candidate)), key=accuracy_then_loss
        )
        for init in INITS
        for candidate in TUNED
    }


def _metrics(job: JobView) -> Mapping[str, float | None]:
    return job.summary.metrics if job.summary and job.status is JobStatus.SUCCEEDED else {}


# --- what came out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lead:
    """Mean paired difference of two arms in test accuracy, with its 95 % interval where one can be given."""

    of: Arm
    over: Arm
    difference: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Outcome:
    """What `GET /v1/compare` says about one initialization, found by arm."""

    init: str
    answer: CompareAnswer

    def group(self, arm: Arm) -> GroupView:
        """The group that ran this arm."""
        wanted = arm.candidate.at(arm.lr)
        return next(group for group in self.answer.groups if _includes(group.optimizer, wanted))

    def deviation(self, arm: Arm) -> float | None:
        """Distance of the mean from the reference table; None where no run ended."""
        mean = self.group(arm).mean
        return None if mean is None else mean - arm.reference

    def agrees(self, arm: Arm) -> bool:
        """Whether the mean is what the reference table says.

        Hard collisions draw other random numbers here than they did there, and at a learning rate where one seed in
        five goes astray a mean of five can be further off than the tolerance: then its own interval has to hold it.
        """
        deviation, interval = self.deviation(arm), self.group(arm).interval
        if deviation is None:
            return False
        return abs(deviation) <= TOLERANCE or (interval is not None and interval[0] <= arm.reference <= interval[1])

    def lead(self, of: Arm, over: Arm) -> Lead | None:
        """How far `of` leads `over`; None where they are the same runs or nothing can be said."""
        a, b = self.group(of).label, self.group(over).label
        for pair in self.answer.pairs:
            if {pair.a, pair.b} == {a, b} and pair.difference is not None:
                sign = 1 if pair.a == a else -1
                ends = sorted(sign * end for end in pair.interval) if pair.interval else None
                return Lead(of, over, sign * pair.difference, (ends[0], ends[1]) if ends else None, pair.n)
        return None


def _includes(resolved: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a resolved optimizer is the one asked for, with the other parameters at their defaults."""
    return resolved["name"] == asked["name"] and all(
        resolved["params"].get(name) == value for name, value in asked["params"].items()
    )


def seconds_per_run(jobs: Sequence[JobView]) -> float | None:
    """Mean training time, without evaluation."""
    times = [job.summary.train_seconds for job in jobs if job.summary]
    return fmean(times) if times else None
