"""Latency of requests that read many runs, over HTTP, on the embedded servers.

One comparison with 400 runs of 8 optimizers x 50 seeds, each with 13 curves of 39 points, serves the cases of DESIGN:
the leaderboard, time to target, and a comparison of 400 jobs. Prints the median of 30 calls in milliseconds, the goal,
if any, and the ratio to the first request, a list with one job.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import uvicorn

from service.accounts import api_keys
from service.app import create_app
from service.comparisons import lifecycle
from service.comparisons.design.requests import ComparisonRequest
from service.jobs import claims, heartbeats, outcomes
from service.operations.embedded.servers import Embedded
from service.specs.engine import ENGINE_VERSION
from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage import database
from service.storage.tables import Worker

OPTIMIZERS = [{"name": "adam", "params": {"lr": 0.001 * (k + 1)}} for k in range(8)]
REQUEST = {
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}, "target": {"value": 0.9}}],
    "optimizers": OPTIMIZERS,
    "seeds": 50,
}
ENVIRONMENT = {
    "torch": "2.14.1",
    "device_kind": "cpu",
    "device_name": "one",
    "engine_version": ENGINE_VERSION,
    "data_hash": "aa",
}
METRICS = [
    *(f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", "accuracy")),
    *("best_test_accuracy", "lr", "grad_norm", "update_norm"),
    *("samples_per_second", "weight_correlation", "effective_rank"),
]
CALLS = 30


def fill() -> str:
    """Store a comparison with 400 finished runs; return its id."""
    with database.transaction() as session:
        session.add(Worker(id="w", host="here", slots=2, devices=[{"kind": "cpu"}], torch="2.14.1"))
    key = api_keys.create("ada")
    os.environ["KEY"] = key
    with database.transaction() as session:
        owner = api_keys.authenticated_user(session, f"Bearer {key}")
        comparison = lifecycle.create(
            session, owner, lifecycle.resolved_plan(ComparisonRequest.model_validate(REQUEST))
        ).id
    rng = np.random.default_rng(0)
    steps = list(range(1, 40))
    while finish(rng, steps):
        pass
    with database.transaction() as session:
        lifecycle.advance_one(session, comparison)
    return str(comparison)


def finish(rng: np.random.Generator, steps: list[int]) -> bool:
    """Finish a queued job; return False if there is none."""
    with database.transaction() as session:
        claim = claims.claim(session, "w", has_cuda=False)
        if claim is None:
            return False
        value = 0.9 + rng.normal(0, 0.01) - claim.spec["optimizer"]["params"]["lr"]
        curve = (steps, (value - np.exp(-np.array(steps) / 10)).tolist(), [0.01 * step for step in steps])
        summary = Summary(
            reason=Reason.COMPLETED, steps=39, epochs=3.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
            metrics=dict.fromkeys(METRICS, value), best_step=39, target=None,
        )  # fmt: skip
        batches = [heartbeats.Batch(dict.fromkeys(METRICS, curve))]
        outcomes.finish(session, claim, Reason.COMPLETED, summary=summary, environment=ENVIRONMENT, batches=batches)
    return True


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder, "home"), fast=True) as embedded:
            os.environ["KOTRAIN_DATABASE_URL"] = embedded.database_url
            os.environ["KOTRAIN_BROKER_URL"] = embedded.broker_url
            os.environ["KOTRAIN_HOME"] = folder
            database.migrate()
            comparison = fill()
            server = uvicorn.Server(uvicorn.Config(create_app(), port=8765, log_level="error"))
            threading.Thread(target=server.run, daemon=True).start()
            while not server.started:
                time.sleep(0.01)
            time_requests(comparison)
            server.should_exit = True


def time_requests(comparison: str) -> None:
    """Time each request and print the table."""
    runs = {"dataset": "digits", "model": "mlp"}
    requests = [
        ("one job in a list", "/v1/jobs", {"limit": 1}, None),
        ("leaderboard, 400 runs", "/v1/leaderboard", runs, 15),
        ("compare, 400 runs in 8 groups", "/v1/compare", runs, None),
        ("... with a target looked up in the curves", "/v1/compare", {**runs, "target": 0.85}, None),
        ("time to target, 50 runs", "/v1/compare",
         {**runs, "target": 0.85, "where": "optimizer.params.lr=0.001"}, 20),
        ("comparison of 400 jobs", f"/v1/comparisons/{comparison}", {}, None),
        ("its report as csv", f"/v1/comparisons/{comparison}/report", {"format": "csv"}, None),
        ("its report as html", f"/v1/comparisons/{comparison}/report", {"format": "html"}, None),
    ]  # fmt: skip
    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}
    smallest = None
    print(f"{'request':45s} {'ms':>8s} {'goal':>6s} {'ratio':>7s} {'kB':>7s}")
    with httpx2.Client(base_url="http://127.0.0.1:8765", headers=headers, timeout=120) as http:
        for name, path, query, goal in requests:
            times = []
            for _ in range(CALLS if "html" not in name else 3):
                start = time.perf_counter()
                response = http.get(path, params=query)
                times.append(1000 * (time.perf_counter() - start))
                assert response.status_code == 200, response.text
            median = statistics.median(times)
            smallest = smallest or median
            size = len(response.content) / 1000
            print(f"{name:45s} {median:8.1f} {goal or '-':>6} {median / smallest:7.1f} {size:7.0f}")


if __name__ == "__main__":
    main()
