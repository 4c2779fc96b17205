"""Stored jobs for `GET /v1/compare`, and the queries whose answers are stored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from service.comparisons.analysis.compare_runs import compare_runs
from service.comparisons.analysis.runs import StoredRun
from service.comparisons.design.results import Result
from service.errors import Invalid
from service.specs.states import JobStatus, Reason
from service.specs.summary import Target, TargetHit
from service.specs.training import TrainSpec

START = datetime(2026, 1, 1, tzinfo=UTC)
TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}
ENVIRONMENT = {"device_kind": "cpu", "torch": "2.14.1", "data_hash": "aa", "engine_version": 2, "host": "one"}
BASE = [0.951, 0.949, 0.953, 0.947, 0.950]
BETTER = [0.967, 0.966, 0.970, 0.962, 0.965]
ALIKE = [0.966, 0.968, 0.969, 0.960, 0.967]


class Stored:
    """Jobs as read from the database, added one group at a time."""

    def __init__(self) -> None:
        self.runs: list[StoredRun] = []

    def add(
        self,
        optimizer: Any,
        values: Sequence[float | None],
        *,
        hits: Sequence[int] = (),
        reason: Reason | None = Reason.COMPLETED,
        first_seed: int = 0,
        environment: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Stored:
        """Add a run per value, with consecutive seeds; `hits` are the steps to the target of the first runs."""
        for number, value in enumerate(values):
            body = {**TASK, "optimizer": optimizer, "seed": first_seed + number, **fields}
            spec = TrainSpec.model_validate_json(json.dumps(body)).model_dump(mode="json", exclude={"seed"})
            hit = TargetHit(step=hits[number], wall_seconds=hits[number] / 100) if number < len(hits) else None
            position = len(self.runs)
            self.runs.append(
                StoredRun(
                    job=UUID(int=position + 1),
                    spec=spec,
                    seed=first_seed + number,
                    environment=environment or ENVIRONMENT,
                    result=Result(reason.status if reason else JobStatus.RUNNING, reason, value),
                    hit=hit,
                    finished_at=START + timedelta(seconds=position) if reason else None,
                )
            )
        return self

    def compare(self, metric: str = "test_accuracy", group_by: Any = "optimizer", **params: Any) -> dict[str, Any]:
        """The answer, or the errors of an invalid query."""
        query = {"dataset": "digits", "model": "mlp", "target": None} | params
        try:
            answer = compare_runs(self.runs, metric=metric, group_by=group_by, **query)
        except Invalid as invalid:
            return {"refused": str(invalid), "errors": [[error.pointer, error.detail] for error in invalid.errors]}
        return answer.model_dump(mode="json")


def adam(lr: float = 0.001, **params: Any) -> dict[str, Any]:
    return {"name": "adam", "params": {"lr": lr, **params}}


def ko(lr: float = 0.001, **params: Any) -> dict[str, Any]:
    return {"name": "ko", "params": {"base": "adam", "lr": lr, **params}}


def sgd(lr: float = 0.1) -> dict[str, Any]:
    return {"name": "sgd", "params": {"lr": lr}}


def _noisy(mean: float, count: int, seed: int, sd: float = 0.006) -> list[float]:
    generator = random.Random(seed)
    return [round(generator.gauss(mean, sd), 4) for _ in range(count)]


def _several_rates() -> Stored:
    stored = Stored().add(adam(), BASE).add(adam(0.01), [value + 0.014 for value in reversed(BASE)])
    stored.add(ko(), BETTER).add(ko(bounded=True), ALIKE).add(ko(0.1), [value - 0.2 for value in BETTER])
    return stored.add(adam(0.1), [value / 5 for value in reversed(BASE)])


def _left_out() -> Stored:
    stored = Stored().add(adam(), BASE).add(adam(), [0.95], first_seed=0)
    stored.add(adam(), [None, None], evaluate_test=False).add(ko(), [None], reason=None)
    return stored.add(ko(), [None] * 3, reason=Reason.OUT_OF_MEMORY).add(ko(), [None], reason=Reason.CANCELLED)


def _diverged() -> Stored:
    stored = Stored().add(adam(), BASE, hits=[90, 80, 70]).add(ko(), BETTER[:4], hits=[60, 50, 55, 45])
    stored.add(ko(), [0.99], first_seed=4, reason=Reason.DIVERGED)
    return stored.add(ko(gamma=50.0), [None] * 5, reason=Reason.DIVERGED)


def _by_schedule() -> Stored:
    stored = Stored().add(adam(), _noisy(0.95, 8, 1), schedule="constant")
    return stored.add(adam(), _noisy(0.956, 8, 2), schedule="cosine").add(adam(), _noisy(0.93, 6, 3), schedule="step")


def _by_model() -> Stored:
    stored = Stored().add(adam(), BASE).add(adam(), [value - 0.1 for value in ALIKE], model="cnn")
    return stored.add(adam(), BETTER, model={"name": "mlp", "params": {"hidden": [64]}})


def _by_batch_size() -> Stored:
    stored = Stored()
    for size, mean in ((16, 0.95), (32, 0.951), (64, 0.948), (128, 0.9)):
        stored.add(adam(), _noisy(mean, 7, size), batch_size=size)
    return stored


def _unequal_seeds() -> Stored:
    stored = Stored().add(adam(), _noisy(0.95, 12, 4)).add(ko(), _noisy(0.956, 9, 5), first_seed=3)
    return stored.add(sgd(), _noisy(0.955, 4, 6), first_seed=40)


def _many_groups() -> Stored:
    stored = Stored()
    for position, gamma in enumerate((0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)):
        stored.add(ko(gamma=gamma), _noisy(0.95 - 0.004 * position, 10, 20 + position))
    return stored


TARGET = Target(value=0.95)
QUERIES: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": lambda: Stored().compare(),
    "one-group": lambda: Stored().add(adam(), BASE).compare(),
    "decided": lambda: Stored().add(adam(), BASE).add(ko(), BETTER).compare(),
    "open": lambda: Stored().add(ko(), BETTER).add(ko(bounded=True), ALIKE).compare(),
    "one-behind": lambda: Stored().add(adam(), BASE).add(ko(), BETTER).add(ko(bounded=True), ALIKE).compare(),
    "unequal-rates": lambda: Stored().add(adam(), BASE).add(sgd(), BETTER).compare(),
    "several-rates": lambda: _several_rates().compare(),
    "several-rates-of-two-seeds": lambda: (
        Stored().add(adam(), BASE[:2]).add(adam(0.01), ALIKE[:2]).add(ko(), BETTER[:2]).compare()
    ),
    "loss": lambda: Stored().add(adam(), [0.5, 0.6, 0.7]).add(ko(), [0.1, 0.21, 0.29]).compare("test_loss"),
    "left-out": lambda: _left_out().compare(),
    "diverged": lambda: _diverged().compare(target=TARGET),
    "all-diverged": lambda: Stored().add(adam(), [None] * 3, reason=Reason.DIVERGED).compare(),
    "ties": lambda: Stored().add(adam(), BASE).add(ko(), BASE).add(sgd(), [value - 0.1 for value in ALIKE]).compare(),
    "constant-lead": lambda: Stored().add(adam(), [0.9, 0.8, 0.7]).add(ko(), [0.95, 0.85, 0.75]).compare(),
    "two-seeds": lambda: Stored().add(adam(), BASE[:2]).add(ko(), BETTER[:2]).compare(),
    "no-shared-seeds": lambda: Stored().add(adam(), BASE).add(ko(), BETTER, first_seed=10).compare(),
    "unequal-seeds": lambda: _unequal_seeds().compare(),
    "unequal-seeds-any": lambda: _unequal_seeds().compare(stopping="any"),
    "many-groups": lambda: _many_groups().compare(),
    "many-groups-any": lambda: _many_groups().compare(stopping="any"),
    "by-schedule": lambda: _by_schedule().compare(group_by="schedule"),
    "by-model": lambda: _by_model().compare(group_by="model", model=None),
    "by-batch-size": lambda: _by_batch_size().compare(group_by="batch_size"),
    "by-precision": lambda: (
        Stored().add(adam(), BASE).add(adam(), BETTER, precision="bf16").compare(group_by="precision")
    ),
    "own-targets": lambda: (
        Stored()
        .add(adam(), BASE, hits=[300, 100, 200], target={"value": 0.9})
        .add(ko(), BETTER, hits=[90, 80], target={"value": 0.9})
        .compare()
    ),
    "different-targets": lambda: (
        Stored()
        .add(adam(), BASE, hits=[100] * 5, target={"value": 0.9})
        .add(ko(), BETTER, hits=[100] * 5, target={"value": 0.8})
        .compare()
    ),
    "samples-per-second": lambda: (
        Stored()
        .add(adam(), [12_345.6, 12_400.1, 12_390.0])
        .add(sgd(), [14_000.5, 14_100.0, 13_990.2])
        .compare("samples_per_second")
    ),
    "mixed-settings": lambda: (
        Stored()
        .add(adam(), BASE)
        .add(ko(), BETTER, batch_size=32, schedule="cosine")
        .add(sgd(), BASE, environment=ENVIRONMENT | {"torch": "2.11.0"})
        .compare()
    ),
    "no-better-direction": lambda: Stored().add(adam(), BASE).compare("grad_norm"),
}
