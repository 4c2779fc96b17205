"""Comparisons that are created, advanced and cancelled concurrently: a transaction begins while another is open."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from service.accounts import api_keys
from service.comparisons import lifecycle
from service.comparisons.design.requests import ComparisonRequest
from service.comparisons.running import running
from service.errors import Conflict
from service.jobs import actions, claims, outcomes
from service.storage import database
from service.storage.tables import Comparison, Job, User
from tests.integration.comparisons.comparison_calls import REQUEST, finish_one, job_ids

BLOCKED = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


class ConcurrentStep:
    """A step in its own transaction and thread; after construction it waits for a lock, or has ended."""

    def __init__(self, step):
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(self._run, step)
        pause = threading.Event()
        while not (self._future.done() or self.waits):
            pause.wait(0.005)

    @staticmethod
    def _run(step):
        with database.transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '30s'"))
            return step(session)

    @property
    def waits(self) -> bool:
        with database.transaction() as session:
            return session.scalar(BLOCKED) > 0

    @property
    def ended(self) -> bool:
        return self._future.done()

    def result(self):
        with self._pool:
            return self._future.result(timeout=30)


def create(name, **fields):
    def step(session) -> dict:
        user = session.scalar(select(User).where(User.name == name))
        request = ComparisonRequest.model_validate(REQUEST | fields)
        return {"id": str(lifecycle.create(session, user, lifecycle.resolved_plan(request)).id)}

    return step


def advance(comparison):
    return lambda session: lifecycle.advance_one(session, UUID(comparison["id"]))


def cancel(comparison, name="ada"):
    def step(session):
        user = session.scalar(select(User).where(User.name == name))
        lifecycle.cancel(session, user, UUID(comparison["id"]))

    return step


def count_jobs() -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Job))


def status(comparison) -> str:
    with database.transaction() as session:
        return session.get(Comparison, UUID(comparison["id"])).status


@pytest.fixture
def users(worker):
    for name in ("ada", "bob"):
        api_keys.create(name)


@pytest.fixture
def tuned(users):
    """Two equal comparisons, all of whose runs have finished but those that depend on the tuning."""
    comparisons = []
    for name in ("ada", "bob"):
        with database.transaction() as session:
            comparisons.append(create(name)(session))
    while finish_one():
        pass
    return comparisons


def test_comparisons_created_concurrently_share_jobs(users):
    with database.transaction() as session:
        first = create("ada")(session)
        other = ConcurrentStep(create("bob"))
        assert other.waits
    second = other.result()
    assert job_ids(first) == job_ids(second)
    assert count_jobs() == 5


def test_comparisons_advanced_concurrently_share_jobs(tuned):
    first, second = tuned
    with database.transaction() as session:
        advance(first)(session)
        other = ConcurrentStep(advance(second))
        assert other.waits
    other.result()
    assert job_ids(first) == job_ids(second)
    assert count_jobs() == 8


def test_comparison_is_advanced_by_one_worker_at_a_time(tuned):
    first, _ = tuned
    with database.transaction() as session:
        advance(first)(session)
        other = ConcurrentStep(advance(first))
        assert other.ended  # the other worker advances it, and this one need not wait
        other.result()
    assert len(job_ids(first)) == count_jobs() == 8


def test_many_concurrent_comparisons_neither_duplicate_jobs_nor_deadlock(users):
    def create_and_advance(name):
        with database.transaction() as session:
            created = create(name, seeds=5)(session)
        for comparison in [created, *({"id": str(comparison_id)} for comparison_id in running_ids())]:
            with database.transaction() as session:
                advance(comparison)(session)
        return created

    def running_ids():
        with database.transaction() as session:
            return running(session)

    with ThreadPoolExecutor(8) as pool:
        comparisons = list(pool.map(create_and_advance, ["ada", "bob"] * 4))
    assert len({frozenset(job_ids(comparison)) for comparison in comparisons}) == 1
    assert count_jobs() == 2 + 5


def test_cancel_during_advance_leaves_no_job(users, tuned):
    first, second = tuned
    with database.transaction() as session:
        cancel(second, "bob")(session)
    with database.transaction() as session:
        advance(first)(session)
        other = ConcurrentStep(cancel(first))
        assert other.waits
    other.result()
    assert status(first) == "cancelled"
    with database.transaction() as session:
        statuses = session.scalars(select(Job.status).where(Job.id.in_(job_ids(first)))).all()
    assert (statuses.count("cancelled"), statuses.count("succeeded")) == (3, 5)


def test_advance_during_cancel_requests_no_job(tuned):
    first, _ = tuned
    with database.transaction() as session:
        cancel(first)(session)
        other = ConcurrentStep(advance(first))
        assert other.ended
        other.result()
    assert (status(first), count_jobs()) == ("cancelled", 5)


def test_ended_comparison_is_not_cancelled(tuned):
    first, _ = tuned
    with database.transaction() as session:
        advance(first)(session)
    while finish_one():
        pass
    with database.transaction() as session:
        advance(first)(session)
        other = ConcurrentStep(cancel(first))
        assert other.waits
    with pytest.raises(Conflict, match="succeeded"):
        other.result()
    assert status(first) == "succeeded"


def test_job_requeued_during_cancel_is_cancelled(users):
    with database.transaction() as session:
        create("ada")(session)
    with database.transaction() as session:
        claim = claims.claim(session, "w", has_cuda=False)
    with database.transaction() as session:
        assert outcomes.requeue(session, claim, "the worker shuts down")
        other = ConcurrentStep(lambda session: actions.cancel_many(session, [claim.job_id]))
        assert other.waits
    other.result()
    with database.transaction() as session:
        job = session.get(Job, claim.job_id)
        assert job.status == "cancelled" or job.cancel_requested
