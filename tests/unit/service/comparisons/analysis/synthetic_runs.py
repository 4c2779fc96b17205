"""Synthetic runs of a comparison, whose true means are known, and the answer to them."""

import itertools
from datetime import UTC, datetime
from uuid import UUID, uuid4

import numpy as np

from service.comparisons.analysis.conclusion import conclude
from service.comparisons.analysis.runs import CellRun
from service.comparisons.answers import ComparisonSummary, Estimate
from service.comparisons.design import schedule
from tests.unit.service.comparisons.plans import scored

START = datetime(2026, 1, 1, tzinfo=UTC)
ENVIRONMENT = {
    "device_kind": "cpu",
    "device_name": "one",
    "torch": "2.14.1",
    "data_hash": "aa",
    "engine_version": 2,
}


def run(cell, result, **changes):
    """The run of a cell; `changes` replace fields of it."""
    fields = {
        "job": UUID(int=abs(hash(cell)) % 2**128),
        "user": "ada",
        "is_reused": False,
        "message": None,
        "train_seconds": 2.0,
        "total_seconds": 3.0,
        "steps": 100,
        "parameters": 1000,
        "hit": None,
        "memory": {"peak_bytes": 2**20, "optimizer_state_bytes": 8000},
        "environment": ENVIRONMENT if result.is_final else dict.fromkeys(ENVIRONMENT),
        "finished_at": START if result.is_final else None,
        "is_shared": False,
    }
    return CellRun(cell=cell, result=result, **(fields | changes))


def play_runs(plan, result, **changes):
    """The runs that the schedule requests, with `result(cell)`, until none is requested or one is unfinished."""
    results = {}
    while missing := [cell for cell in schedule.due(plan, results) if cell not in results]:
        results |= {cell: result(cell) for cell in missing}
        if any(not ended.is_final for ended in results.values()):
            break
    return [run(cell, ended, **changes) for cell, ended in results.items()]


def answer(plan, runs, status="succeeded"):
    """The answer to a comparison with this plan, these runs and this status."""
    summary = ComparisonSummary(id=uuid4(), name="test", user="ada", status=status, created_at=START, finished_at=START)
    pairs = itertools.product(range(len(plan.tasks)), range(len(plan.optimizers)))
    estimates = {pair: Estimate(task="", optimizer="", seconds=3.0, runs=5) for pair in pairs}
    return conclude(summary, plan, runs, estimates)


def noisy(means, sd=0.004, seed=0):
    """A function that gives a cell the mean of its optimizer plus noise of its task, optimizer and seed."""
    noise = np.random.default_rng(seed).normal(0, sd, (8, len(means), 50))
    return lambda cell: scored(float(means[cell.optimizer] + noise[cell.task, cell.optimizer, cell.seed % 50]))
