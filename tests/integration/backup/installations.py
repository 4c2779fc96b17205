"""Installations (a database and a home each) between which tests move backups."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from service.accounts import api_keys
from service.jobs import claims, heartbeats, outcomes
from service.jobs.checkpoints import Written, name_of
from service.jobs.claims import Claim
from service.jobs.heartbeats import Batch, Beat
from service.metrics import write
from service.operations.backup import backup
from service.specs.states import Reason
from service.storage import database, schema_version
from service.storage.files import digest, store
from tests import connections
from tests.clients import client

COMPARISON = {
    "name": "which",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}}],
    "optimizers": [{"name": "adam"}, {"name": "sgd", "params": {"lr": 0.1}}],
    "seeds": 2,
}


TABLES = ("users", "api_keys", "jobs", "job_events", "metric_names", "metric_chunks", "checkpoints", "comparisons")


CODE = schema_version.code_number()


class Installation:
    """A database and a home of its own; `activate` makes this process use them."""

    def __init__(self, url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.url, self.home, self._patch = url, home, patch

    def activate(self) -> None:
        self._patch.setenv("KOTRAIN_DATABASE_URL", self.url)
        self._patch.setenv("KOTRAIN_HOME", str(self.home))
        connections.forget()
        self._patch.setattr(write, "_name_ids", {})

    def files(self) -> dict[str, int]:
        return dict(store().names())


def do(call: Callable, *arguments, **options):
    with database.transaction() as session:
        return call(session, *arguments, **options)


def run(statement: str, **values: object) -> None:
    do(lambda session: session.execute(text(statement), values))


def restore(source: Path) -> backup.Restored:
    with backup.verified(source) as whole:
        return backup.restore(whole)


def rows(table: str) -> list:
    return do(lambda session: session.scalars(text(f"SELECT to_jsonb({table}) FROM {table} ORDER BY 1")).all())


def checkpoint_batch(claim: Claim, step: int) -> Batch:
    """Write a checkpoint; return the batch that reports it."""
    name = name_of(claim.job_id, claim.attempt, f"{step}.ckpt")
    path = store().place(name)
    path.write_bytes(os.urandom(5000))
    written = Written(step, name, path.stat().st_size, digest(path), seconds=1.5)
    store().put(name)
    return Batch({"train_loss": ([step - 1, step], [0.5, 0.25], [0.1, 0.2])}, [written], ["a note"])


def fill() -> Claim:
    """Store a comparison of four runs: one running with two checkpoints, one failed. Return the first one's claim."""
    database.migrate()
    with client(api_keys.create("ada")) as ada:
        assert ada.post("/v1/comparisons", json=COMPARISON).status_code == 202
    running, failed = (do(claims.claim, "w1", has_cuda=False) for _ in range(2))
    for step in (10, 20):
        do(heartbeats.beat, "w1", [Beat(running, step, 100, [checkpoint_batch(running, step)])])
    do(
        outcomes.finish,
        failed,
        Reason.ERROR,
        message="Wörter\nüber Zeilen",
        batches=[Batch({"lr": ([1], [0.1], [0.0])})],
    )
    return running


def is_empty(installation: Installation) -> bool:
    """Return whether the active installation has neither a schema nor files."""
    with database.engine().connect() as connection:
        return schema_version.read(connection) is None and installation.files() == {}
