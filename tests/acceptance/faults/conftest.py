"""A stack for fault injection, and the jobs on it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from service.accounts import api_keys
from service.metrics import read
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import Checkpoint, JobEvent
from tests import tables
from tests.acceptance.faults.ledger import Ledger, Result
from tests.acceptance.faults.references import undisturbed
from tests.acceptance.faults.specs import SPECS
from tests.acceptance.faults.stack import PATIENCE_SECONDS, Stack
from tests.acceptance.lab import Lab, RunningWorker
from tests.waiting import until
from workers.heartbeat import is_away

JOBS = ("long", "adam", "ko soft", "tiny")


@dataclass(frozen=True)
class SavedProgress:
    """The part of a job's training that a checkpoint preserves: the points up to a step, with their times."""

    step: int
    points: dict[str, list[tuple[int, float]]]


class FaultLab(Lab):
    """Jobs that must survive every fault; each test ends with `settle`, which checks them."""

    def __init__(self, stack: Stack, references: Mapping[str, Result]) -> None:
        super().__init__(stack.client)
        self.stack, self.references = stack, references
        self.ledger = Ledger()
        self.is_settled = False

    def train(self, name: str = "adam", ends: Iterable[Reason] = (Reason.COMPLETED,), **fields: Any) -> str:
        """Submit one of `SPECS`; `fields` must not change its result."""
        job_id = self.submit(SPECS[name], **fields)
        self.ledger.accept(job_id, self.references[name], ends)
        return job_id

    def wait_until_step(self, job_id: str, steps: int = 300) -> None:
        """Wait until the job has trained for `steps` steps."""
        until(lambda: self.show(job_id)["progress"]["step"] >= steps, PATIENCE_SECONDS)
        assert self.show(job_id)["status"] == "running", "the job ended before the fault"

    def owner(self, job_id: str) -> RunningWorker:
        return self.stack.worker_of(self.show(job_id))

    def others(self, worker: RunningWorker) -> list[RunningWorker]:
        return [other for other in self.stack.workers if other is not worker]

    def child(self, job_id: str) -> int:
        """The training process of a job that is alone on its worker."""
        return self.owner(job_id).child()

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """The job's checkpoints, oldest first."""
        with database.transaction() as session:
            query = select(Checkpoint).where(Checkpoint.job_id == UUID(job_id)).order_by(Checkpoint.step)
            return list(session.scalars(query))

    def notes(self, job_id: str, attempt: int) -> list[str]:
        """Messages of the events of an attempt."""
        with database.transaction() as session:
            query = select(JobEvent).where(JobEvent.job_id == UUID(job_id), JobEvent.attempt == attempt)
            return [event.message or "" for event in session.scalars(query.order_by(JobEvent.seq))]

    def wait_for_checkpoints(self, job_id: str, checkpoints: int = 1) -> SavedProgress:
        """Wait for checkpoints, and return the progress that must not be trained again."""
        until(lambda: len(self.checkpoints(job_id)) >= checkpoints, PATIENCE_SECONDS)
        saved = self.progress_until(job_id, self.checkpoints(job_id)[-1].step)
        assert self.show(job_id)["status"] == "running", "the job ended before the fault"
        return saved

    def progress_until(self, job_id: str, step: int) -> SavedProgress:
        """The points up to a step with their wall-clock times, which repeated steps would change."""
        with database.transaction() as session:
            curves = read.curves(session, [UUID(job_id)]).get(UUID(job_id), {})
        points = {
            name: [
                (at, seconds)
                for at, seconds in zip(curve.steps.tolist(), curve.wall_seconds.tolist(), strict=True)
                if at <= step
            ]
            for name, curve in curves.items()
        }
        return SavedProgress(step, {name: pairs for name, pairs in points.items() if pairs})

    def assert_continued(self, job_id: str, saved: SavedProgress, attempt: int = 2) -> None:
        """Assert that the attempt resumed after the saved progress without repeating it.

        The checkpoint may have been written before the validation at its step, whose points come later.
        """
        match = re.search(r"continued after step (\d+)", " ".join(self.notes(job_id, attempt)))
        assert match is not None, f"attempt {attempt} restarted: {self.notes(job_id, attempt)}"
        assert int(match[1]) >= saved.step
        stored = self.progress_until(job_id, saved.step)
        assert saved.points.keys() <= stored.points.keys()
        for name, points in stored.points.items():
            before = saved.points.get(name, [])
            assert points[: len(before)] == before, name
            assert {step for step, _ in points[len(before) :]} <= {saved.step}, name

    def settle(self, living: Iterable[str] | None = None) -> None:
        """Wait until every accepted job has ended, and compare the tables with the ledger."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._have_all_ended(living):
            assert time.monotonic() < deadline, f"jobs have not ended: {self.ledger.entries.keys()}"
            time.sleep(0.1)
        until(lambda: not self.stack.strays(), 20)
        with database.transaction() as session:
            assert self.ledger.problems(session) == []
        self.is_settled = True

    def _have_all_ended(self, living: Iterable[str] | None) -> bool:
        try:
            with database.transaction() as session:
                return self.ledger.look(session, self.stack.living() if living is None else living)
        except Exception as error:
            if not is_away(error):
                raise
            self.ledger.skip_look()
            return False


@pytest.fixture(scope="module")
def stack(schema: None, servers: Any) -> Iterator[Stack]:
    """The API and two workers, on empty tables."""
    tables.clear()
    with Stack(servers, api_keys.create("ada")) as stack:
        for _ in range(2):  # they start together with the API, which is ready first
            stack.start_worker()
        stack.api.ready()
        yield stack


@pytest.fixture(scope="module")
def references(stack: Stack) -> dict[str, Result]:
    """The results of the jobs without faults."""
    stack.have_workers(2)
    return undisturbed(stack, JOBS)


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def lab(stack: Stack, references: dict[str, Result], request: pytest.FixtureRequest) -> Iterator[FaultLab]:
    """Empty tables and two ready workers; fails if the test does not end with `settle`."""
    tables.clear_jobs()
    stack.have_workers(2)
    lab = FaultLab(stack, references)
    yield lab
    assert lab.is_settled or request.node.stash.get(FAILED, False), "the test did not call lab.settle()"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
