"""Calls that start comparisons as a user does, and finish their jobs as a worker does, with invented results."""

import zlib
from uuid import UUID

from sqlalchemy import select

from service.comparisons import lifecycle
from service.comparisons.running import running
from service.jobs import claims, outcomes
from service.specs.engine import ENGINE_VERSION
from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage import database
from service.storage.tables import ComparisonCell, Job

LR = {"lr": {"log_uniform": [0.0003, 0.03]}}


REQUEST = {
    "name": "test",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}],
    "optimizers": [{"name": "adam", "space": LR}, {"name": "sgd", "params": {"lr": 0.1}}],
    "tuning": {"trials": 2},
    "seeds": 3,
}


ENVIRONMENT = {
    "torch": "2.14.1",
    "device_kind": "cpu",
    "device_name": "one",
    "engine_version": ENGINE_VERSION,
    "data_hash": "aa",
}


LIMITED = {"name": "digits", "params": {"limit": 100_000}}


WORKER = {"id": "w", "host": "here", "slots": 2, "devices": [{"kind": "cpu"}], "torch": "2.14.1"}


def score(spec) -> float:
    """Return an invented score: Adam's is higher than SGD's; the noise depends on the spec alone."""
    noise = zlib.crc32(repr(sorted(spec.items())).encode()) % 1000 / 1e5
    return (0.9 if spec["optimizer"]["name"] == "adam" else 0.8) + noise


def finish_one(environment=ENVIRONMENT, reason=Reason.COMPLETED) -> UUID | None:
    """Claim and finish a job; return its id, or None if no job is queued."""
    with database.transaction() as session:
        claim = claims.claim(session, "w", has_cuda=False)
        if claim is None:
            return None
        value = score(claim.spec)
        names = ["val_accuracy", "val_loss", *(["test_accuracy", "test_loss"] if claim.spec["evaluate_test"] else [])]
        summary = Summary(
            reason=reason, steps=39, epochs=3.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
            metrics={name: value if name.endswith("accuracy") else 1 - value for name in names},
            best_step=39, target=None,
        )  # fmt: skip
        reported = None if reason is Reason.ERROR else summary
        assert outcomes.finish(
            session, claim, reason, summary=reported, environment=environment, message="trace\nthe error"
        )
        return claim.job_id


def advance():
    with database.transaction() as session:
        for comparison in running(session):
            lifecycle.advance_one(session, comparison)


def finish_all(**options) -> int:
    """Finish jobs and advance the comparisons until no job is queued; return the number of jobs."""
    finished = 0
    while True:
        advance()
        if finish_one(**options) is None:
            return finished
        finished += 1


def start(api, **fields) -> dict:
    response = api.post("/v1/comparisons", json=REQUEST | fields)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/v1/comparisons/{response.json()['id']}"
    return response.json()


def show(api, comparison) -> dict:
    response = api.get(f"/v1/comparisons/{comparison['id']}")
    assert response.status_code == 200, response.text
    return response.json()


def job_ids(comparison, phase=None) -> set[UUID]:
    with database.transaction() as session:
        query = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == UUID(comparison["id"]))
        return set(session.scalars(query if phase is None else query.where(ComparisonCell.phase == phase)))


def specs(ids) -> list[dict]:
    with database.transaction() as session:
        return list(session.scalars(select(Job.spec).where(Job.id.in_(ids))))
