"""A stack to hurt, and the jobs on it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

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

TRIED = ("adam", "ko soft", "tiny")


@dataclass(frozen=True)
class Safe:
    """What a job need not train again: all up to a step, and when each point of it was measured."""

    step: int
    points: dict[str, list[tuple[int, float]]]


class FaultLab(Lab):
    """Jobs that must come through whatever happens: `settle` is the check after every fault."""

    def __init__(self, stack: Stack, references: Mapping[str, Result]) -> None:
        super().__init__(stack.caller)
        self.stack, self.references = stack, references
        self.ledger = Ledger()
        self.is_settled = False

    def train(self, name: str = "adam", ends: Iterable[Reason] = (Reason.COMPLETED,), **fields: Any) -> str:
        """Submit one of `SPECS`; `fields` are such as change no result."""
        job_id = self.submit(SPECS[name], **fields)
        self.ledger.accept(job_id, self.references[name], ends)
        return job_id

    def under_way(self, job_id: str, steps: int = 300) -> None:
        """Wait until the job has trained for a while."""
        until(lambda: self.show(job_id)["progress"]["step"] >= steps, PATIENCE_SECONDS)
        assert self.show(job_id)["status"] == "running", "it was over before it could be hurt"

    def owner(self, job_id: str) -> RunningWorker:
        return self.stack.worker_of(self.show(job_id))

    def others(self, worker: RunningWorker) -> list[RunningWorker]:
        return [other for other in self.stack.workers if other is not worker]

    def child(self, job_id: str) -> int:
        """The process that trains a job which is alone on its worker."""
        (child,) = self.owner(job_id).training()
        return child

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """What it could continue from, oldest first."""
        with database.transaction() as session:
            wanted = select(Checkpoint).where(Checkpoint.job_id == UUID(job_id)).order_by(Checkpoint.step)
            return list(session.scalars(wanted))

    def notes(self, job_id: str, attempt: int) -> list[str]:
        """What is said about an attempt of the job."""
        with database.transaction() as session:
            wanted = select(JobEvent).where(JobEvent.job_id == UUID(job_id), JobEvent.attempt == attempt)
            return [event.message or "" for event in session.scalars(wanted.order_by(JobEvent.seq))]

    def safe(self, job_id: str, checkpoints: int = 1) -> Safe:
        """Wait until there is something to continue from, and remember all that must not be trained again."""
        until(lambda: len(self.checkpoints(job_id)) >= checkpoints, PATIENCE_SECONDS)
        safe = self.safe_until(job_id, self.checkpoints(job_id)[-1].step)
        assert self.show(job_id)["status"] == "running", "it was over before it could be hurt"
        return safe

    def safe_until(self, job_id: str, step: int) -> Safe:
        """What was measured until a step, and when: another training of the same steps takes another time."""
        with database.transaction() as session:
            curves = read.curves(session, [UUID(job_id)]).get(UUID(job_id), {})
        pairs = {name: zip(of.steps.tolist(), of.wall_seconds.tolist(), strict=True) for name, of in curves.items()}
        points = {name: [pair for pair in of if pair[0] <= step] for name, of in pairs.items()}
        return Safe(step, {name: of for name, of in points.items() if of})

    def assert_continued(self, job_id: str, safe: Safe, attempt: int = 2) -> None:
        """The attempt went on after what was safe, which nobody trained again.

        It may have been saved before the validation of its last step, which came after that.
        """
        said = re.search(r"continued after step (\d+)", " ".join(self.notes(job_id, attempt)))
        assert said is not None, f"attempt {attempt} began anew: {self.notes(job_id, attempt)}"
        assert int(said[1]) >= safe.step
        now = self.safe_until(job_id, safe.step)
        assert safe.points.keys() <= now.points.keys()
        for name, points in now.points.items():
            before = safe.points.get(name, [])
            assert points[: len(before)] == before, name
            assert {step for step, _ in points[len(before) :]} <= {safe.step}, name

    def settle(self, living: Iterable[str] | None = None) -> None:
        """Wait until every accepted job has ended, and hold what there is against what was promised."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._have_all_ended(living):
            assert time.monotonic() < deadline, f"these jobs do not end: {self.ledger.entries.keys()}"
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
            self.ledger.looked_away()
            return False


@pytest.fixture(scope="module")
def stack(schema: None, servers: Any) -> Iterator[Stack]:
    """The API and two workers, on empty tables."""
    tables.clear()
    with Stack(servers, api_keys.create("ada")) as stack:
        for _ in range(2):  # at the same time as the API, which answers first
            stack.start_worker()
        stack.api.ready()
        yield stack


@pytest.fixture(scope="module")
def references(stack: Stack) -> dict[str, Result]:
    """What the jobs give when nothing happens to them."""
    stack.have_workers(2)
    return undisturbed(stack, TRIED)


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def lab(stack: Stack, references: dict[str, Result], request: pytest.FixtureRequest) -> Iterator[FaultLab]:
    """No job yet, and two workers that listen. No test ends without the check."""
    with database.transaction() as session:
        session.execute(text("TRUNCATE jobs CASCADE"))
    stack.have_workers(2)
    lab = FaultLab(stack, references)
    yield lab
    assert lab.is_settled or request.node.stash.get(FAILED, False), "the test forgot lab.settle()"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
