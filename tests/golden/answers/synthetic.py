"""Synthetic runs of a comparison, without training: the plan, the cell and a fixed seed determine every number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from service.comparisons.analysis.comparability import settled
from service.comparisons.analysis.conclusion import conclude
from service.comparisons.analysis.runs import CellRun
from service.comparisons.answers import ComparisonAnswer, ComparisonSummary, Estimate
from service.comparisons.design import schedule
from service.comparisons.design.plan import Cell, Plan
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.design.resolve import resolve
from service.comparisons.design.results import Result
from service.specs.states import JobStatus, Reason
from service.specs.summary import TargetHit
from tests.unit.service.comparisons.analysis.synthetic_runs import ENVIRONMENT, START

BEST_RATES = {"adam": 3e-3, "adamw": 3e-3, "ko": 3e-3, "sgd": 0.1, "muon": 0.02, "lion": 3e-4}
SLOWNESS = {"sgd": 1.0, "adam": 1.2, "adamw": 1.25, "lion": 1.1, "ko": 1.6, "muon": 2.5}
"""Time of a step, relative to SGD's."""

End = JobStatus | Reason | None
"""How a run ends: with a reason, unfinished with a status, or completed (None)."""


@dataclass(frozen=True)
class Scenario:
    """A comparison and the outcomes of its runs."""

    request: Mapping[str, Any]
    status: str = "succeeded"
    skill: Mapping[int, float] = field(default_factory=dict)
    """Position of an optimizer -> amount added to the accuracy of each of its runs."""
    noise: float = 0.004
    end: Callable[[Cell], End] = lambda cell: None
    changes: Callable[[Cell], Mapping[str, Any]] = lambda cell: {}
    """Fields of a stored run that replace the defaults."""
    score: Callable[[Cell], float] | None = None
    """Replaces the computed accuracy."""
    seconds: float | None = 3.0
    """Estimated duration of a run."""
    rounds: int = 1000
    """Maximal number of times that the schedule is evaluated."""

    @property
    def plan(self) -> Plan:
        """The resolved request."""
        return resolve(ComparisonRequest.model_validate(self.request), {"auto": "cpu"})


def runs_of(scenario: Scenario) -> list[CellRun]:
    """Run the schedule round by round until it requests no more cells; return all runs."""
    plan, runs = scenario.plan, list[CellRun]()
    for _ in range(scenario.rounds):
        results = {run.cell: run.result for run in settled(plan, runs)}
        missing = [cell for cell in schedule.due(plan, results) if cell not in results]
        runs += [_run(scenario, plan, cell, len(runs) + number) for number, cell in enumerate(missing)]
        if not missing or not all(run.result.is_final for run in runs):
            break
    return sorted(runs, key=lambda run: (run.cell.phase == "report", run.cell[1:]))  # the order of the database


def answer_of(scenario: Scenario) -> ComparisonAnswer:
    """The answer of `GET /v1/comparisons/{id}`."""
    plan = scenario.plan
    is_over = scenario.status != "running"
    summary = ComparisonSummary(
        id=UUID(int=1),
        name=plan.name,
        user="ada",
        status=scenario.status,
        message="a worker was lost" if scenario.status == "failed" else None,
        tags=plan.tags,
        created_at=START,
        finished_at=START + timedelta(days=1) if is_over else None,
    )
    estimates = {
        (number, position): Estimate(task=task.label, optimizer=optimizer.label, seconds=scenario.seconds, runs=5)
        for number, task in enumerate(plan.tasks)
        for position, optimizer in enumerate(plan.optimizers)
    }
    return conclude(summary, plan, runs_of(scenario), {} if is_over else estimates)


def schedule_of(scenario: Scenario) -> list[str]:
    """The cells that the schedule requests after these runs, in order."""
    plan = scenario.plan
    results = {run.cell: run.result for run in settled(plan, runs_of(scenario))}
    return [" ".join(map(str, cell)) for cell in schedule.due(plan, results)]


def _run(scenario: Scenario, plan: Plan, cell: Cell, number: int) -> CellRun:
    result = _result(scenario, plan, cell)
    seconds = 2.0 * SLOWNESS.get(plan.optimizers[cell.optimizer].name, 1.3) * (1 + cell.task / 4)
    fields: dict[str, Any] = {
        "job": UUID(int=1000 + number),
        "user": "ada",
        "is_reused": False,
        "message": None,
        "train_seconds": seconds if result.is_final else None,
        "total_seconds": seconds + 0.5 if result.is_final else None,
        "steps": 100 if result.is_final else None,
        "parameters": 1000 * (cell.task + 1) if result.is_final else None,
        "hit": _hit(plan, cell, result, seconds),
        "memory": {"peak_bytes": 2**20 + cell.seed % 7, "optimizer_state_bytes": 8000} if result.is_final else {},
        "environment": ENVIRONMENT if result.is_final else dict.fromkeys(ENVIRONMENT),
        "finished_at": START + timedelta(seconds=number) if result.is_final else None,
        "is_shared": False,
    }
    return CellRun(cell=cell, result=result, **(fields | scenario.changes(cell)))


def _result(scenario: Scenario, plan: Plan, cell: Cell) -> Result:
    end = scenario.end(cell)
    if isinstance(end, JobStatus):
        return Result(end, None)
    if isinstance(end, Reason):
        return Result(end.status, end)
    accuracy = scenario.score(cell) if scenario.score else _accuracy(scenario, plan, cell)
    value = accuracy
    if plan.metric.endswith("loss"):
        value = round(1.5 - 1.4 * accuracy, 4)
    elif plan.metric.endswith("per_second"):
        value = round(50_000 * accuracy / SLOWNESS.get(plan.optimizers[cell.optimizer].name, 1.3) / (1 + cell.task), 1)
    validation = round(accuracy - 0.003, 4)
    return Result(JobStatus.SUCCEEDED, Reason.COMPLETED, value, validation, round(1.2 - validation, 4))


def _accuracy(scenario: Scenario, plan: Plan, cell: Cell) -> float:
    """Highest at the optimizer's best learning rate; part of the noise depends on the task and seed alone."""
    optimizer = plan.optimizers[cell.optimizer]
    params = optimizer.trials[cell.trial]
    condensed = plan.tasks[cell.task].spec["model"]["params"].get("init_scale") == 0.1
    mean = 0.94 - 0.01 * cell.task + scenario.skill.get(cell.optimizer, 0.0)
    mean -= 0.02 * (condensed and optimizer.name != "ko")
    mean -= 0.03 * math.log10(params["lr"] / BEST_RATES.get(optimizer.name, 1e-2)) ** 2
    mean -= 0.01 * abs(math.log10(params["gamma"] / 0.1)) if params.get("gamma") else 0.0
    shared = random.Random(f"{cell.task} {cell.seed}").gauss(0.0, scenario.noise)
    own = random.Random(" ".join(map(str, cell))).gauss(0.0, scenario.noise)
    return round(min(0.9999, max(0.05, mean + shared + own)), 4)


def _hit(plan: Plan, cell: Cell, result: Result, seconds: float) -> TargetHit | None:
    target = plan.tasks[cell.task].spec["target"]
    if target is None or result.val_accuracy is None or result.val_accuracy < target["value"]:
        return None
    late = min(1.0, 0.9 - 8 * (result.val_accuracy - target["value"]))
    step = max(5, round(100 * late))
    return TargetHit(step=step, wall_seconds=round(seconds * step / 100, 3))
