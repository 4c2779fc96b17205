"""The job's states and the fence against superseded attempts, on the real database."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from sqlalchemy import func, select, text

from service.config import settings
from service.jobs import actions, claims, heartbeats, outcomes, queue, submission, transitions, workers
from service.jobs.heartbeats import Batch, Beat, Instruction
from service.jobs.requests import JobRequest
from service.metrics import read
from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.storage import database
from service.storage.tables import Job, User, Worker
from tests.integration.job_calls import (
    REQUEST,
    age_heartbeat,
    claim,
    do,
    events,
    load,
    submit,
    wait_until_leases_count,
)

STATUSES = list(JobStatus)


class TestClaim:
    def test_job_is_claimed_once(self, users):
        job_id = submit()
        claimed = claim()
        assert (claimed.job_id, claimed.attempt) == (job_id, 1)
        assert claim("w2") is None
        job = load(job_id)
        assert (job.status, job.worker_id) == ("running", "w1")
        assert events(job_id) == ["queued", "running"]

    def test_concurrent_workers_claim_each_job_once(self, users):
        submitted = {submit(seed=seed) for seed in range(40)}
        with ThreadPoolExecutor(8) as pool:
            claimed = [c for c in pool.map(lambda n: claim(f"w{n}"), range(60)) if c]
        while (remaining := claim()) is not None:  # a claim skips locked rows, and a slot repeats its claim
            claimed.append(remaining)
        assert sorted(c.job_id for c in claimed) == sorted(submitted)

    def test_order_is_priority_then_fair_share_then_age(self, users):
        ada = [submit("ada", seed=seed) for seed in range(3)]
        bob = [submit("bob", seed=seed) for seed in range(2)]
        urgent = submit("ada", priority=1)
        assert [claim().job_id for _ in range(6)] == [urgent, bob[0], ada[0], bob[1], ada[1], ada[2]]

    def test_gpu_job_waits_for_a_gpu(self, users):
        job_id = submit(device="cuda")
        assert claim() is None
        assert claim(has_cuda=True).job_id == job_id


class TestBeat:
    def test_renews_the_lease_and_stores_points(self, users):
        job_id = submit()
        claimed = claim()
        age_heartbeat(job_id, 60)
        points = {"loss": ([1, 2], [0.5, float("nan")], [0.1, 0.2])}
        assert do(heartbeats.beat, "w1", [Beat(claimed, 2, 10, [Batch(points)])]) == {job_id: Instruction.CONTINUE}
        job = load(job_id)
        assert (job.step, job.total_steps) == (2, 10)
        assert do(outcomes.reclaim_stale) == []
        curve = do(read.curves, [job_id])[job_id]["loss"]
        np.testing.assert_equal(curve.steps, [1, 2])
        np.testing.assert_equal(curve.values, [0.5, np.nan])

    def test_batch_sent_twice_is_stored_once(self, users):
        job_id = submit()
        claimed = claim()
        batch = Batch({"loss": ([1, 2], [0.5, 0.4], [0.1, 0.2])})
        for batches in ([batch], [batch, Batch({"loss": ([3], [0.3], [0.3])})]):
            do(heartbeats.beat, "w1", [Beat(claimed, 2, 10, batches)])
        np.testing.assert_equal(do(read.curves, [job_id])[job_id]["loss"].steps, [1, 2, 3])

    def test_job_has_the_message_of_its_last_beat(self, users):
        job_id = submit()
        claimed = claim()
        for message in ("a checkpoint could not be written: No space left on device", "with \0", None):
            do(heartbeats.beat, "w1", [Beat(claimed, 0, None, [], message)])
            assert load(job_id).message == (message and message.replace("\0", "\\0"))

    def test_reports_a_cancellation(self, users):
        job_id = submit()
        claimed = claim()
        with database.transaction() as session:
            actions.cancel(session, session.get_one(Job, job_id).user, job_id)
        assert do(heartbeats.beat, "w1", [Beat(claimed, 0, None, [])]) == {job_id: Instruction.CANCEL}

    def test_slots_add_new_metrics_concurrently(self, users):
        """One slot inserts a metric's name; the others must not use its id before that is committed."""
        ids = [submit(seed=seed) for seed in range(8)]
        claimed_jobs = [claim() for _ in ids]
        names = [f"new metric {number}" for number in range(40)]

        def store(claimed):
            for name in names:
                do(heartbeats.beat, "w1", [Beat(claimed, 1, 10, [Batch({name: ([1], [0.5], [0.1])})])])

        with ThreadPoolExecutor(len(claimed_jobs)) as pool:
            list(pool.map(store, claimed_jobs))
        assert all(sorted(curves) == sorted(names) for curves in do(read.curves, ids).values())


class TestFence:
    def test_superseded_attempt_writes_nothing(self, users):
        job_id = submit()
        old = claim("frozen")
        do(heartbeats.beat, "frozen", [Beat(old, 1, 10, [Batch({"loss": ([1], [9.0], [0.1])})])])
        age_heartbeat(job_id, 60)
        wait_until_leases_count()
        assert do(outcomes.reclaim_stale) == [job_id]
        late = [Batch({"loss": ([2], [8.0], [0.2])})]
        assert do(heartbeats.beat, "frozen", [Beat(old, 2, 10, late)]) == {job_id: Instruction.LOST}
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET available_at = clock_timestamp()"))
        new = claim("fresh")
        assert new.attempt == 2
        assert do(heartbeats.beat, "frozen", [Beat(old, 2, 10, late)]) == {job_id: Instruction.LOST}
        assert not do(outcomes.finish, old, Reason.COMPLETED, batches=late)
        assert not do(outcomes.requeue, old, "")
        assert not do(outcomes.fail, job_id, old.attempt, Reason.CHILD_LOST, "", late)
        assert not do(claims.begin, old, 0)
        assert do(claims.begin, new, 0)
        assert do(read.curves, [job_id]) == {}
        assert do(outcomes.finish, new, Reason.COMPLETED, batches=[Batch({"loss": ([1], [7.0], [0.1])})])
        assert do(read.curves, [job_id])[job_id]["loss"].values.tolist() == [7.0]
        assert events(job_id) == ["queued", "running", "queued", "running", "running", "succeeded"]


class TestEnds:
    def test_finish_merges_the_chunks(self, users):
        job_id = submit()
        claimed = claim()
        for step in range(1, 6):
            do(heartbeats.beat, "w1", [Beat(claimed, step, 6, [Batch({"loss": ([step], [1.0 / step], [0.1 * step])})])])
        do(outcomes.finish, claimed, Reason.COMPLETED, batches=[Batch({"loss": ([6], [0.0], [0.6])})])
        with database.transaction() as session:
            assert session.scalar(text("SELECT count(*) FROM metric_chunks")) == 1
            assert session.scalar(text("SELECT count(*) FROM metric_points")) == 6
        assert do(read.curves, [job_id])[job_id]["loss"].steps.tolist() == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("reason", list(Reason))
    def test_every_reason_has_its_final_status(self, users, reason):
        job_id = submit()
        assert do(outcomes.finish, claim(), reason)
        job = load(job_id)
        assert (job.status, job.reason) == (reason.status, reason)
        assert JobStatus(job.status).is_final

    def test_lost_job_is_delayed_and_finally_fails(self, users):
        job_id = submit(max_failures=2)
        claimed = claim()
        assert do(outcomes.fail, job_id, claimed.attempt, Reason.CHILD_LOST, "killed by signal 9")
        job = load(job_id)
        assert (job.status, job.failures) == ("queued", 1)
        assert (job.available_at - job.heartbeat_at).total_seconds() > settings().backoff_seconds
        assert claim() is None
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET available_at = clock_timestamp()"))
        claimed = claim()
        assert do(outcomes.fail, job_id, claimed.attempt, Reason.CHILD_LOST, "killed by signal 9")
        job = load(job_id)
        assert (job.status, job.reason, job.message) == ("failed", "child_lost", "killed by signal 9")

    def test_requeue_counts_no_failure(self, users):
        job_id = submit(max_failures=1)
        for attempt in (1, 2, 3):
            claimed = claim()
            assert claimed.attempt == attempt
            assert do(outcomes.requeue, claimed, "the worker is shutting down")
        assert load(job_id).failures == 0

    @pytest.mark.parametrize("message", ["a\0b", "file \udcff", "fine"])
    def test_any_message_can_be_stored(self, users, message):
        job_id = submit()
        assert do(outcomes.finish, claim(), Reason.ERROR, message=message)
        assert load(job_id).message.startswith(message[:1])

    def test_requeued_job_with_cancel_request_is_cancelled(self, users):
        job_id = submit()
        claimed = claim()
        with database.transaction() as session:
            actions.cancel(session, session.get_one(Job, job_id).user, job_id)
        assert do(outcomes.requeue, claimed, "the worker is shutting down")
        assert (load(job_id).status, load(job_id).reason) == ("cancelled", "cancelled")

    def test_lost_job_with_cancel_request_is_cancelled(self, users):
        job_id = submit()
        claimed = claim()
        with database.transaction() as session:
            actions.cancel(session, session.get_one(Job, job_id).user, job_id)
        do(outcomes.fail, job_id, claimed.attempt, Reason.WORKER_LOST, "")
        assert load(job_id).status == "cancelled"


@pytest.mark.parametrize("start", STATUSES)
@pytest.mark.parametrize("end", STATUSES)
def test_only_listed_transitions_are_possible(users, start, end):
    job_id = submit()
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET status = :s WHERE id = :id"), {"s": start, "id": job_id})
    with database.transaction() as session:
        if end in TRANSITIONS[start]:
            assert transitions.change_status(session, job_id, start, end)
        else:
            with pytest.raises(AssertionError):
                transitions.change_status(session, job_id, start, end)


def test_database_downtime_does_not_count_for_leases(users, servers):
    def status():
        return do(workers.workers).workers[0].status

    job_id = submit()
    claim("w1")
    age_heartbeat(job_id, 60)
    add_silent_worker("w1")
    servers.postgres.stop()
    servers.postgres.start()
    assert (do(outcomes.reclaim_stale), status()) == ([], "up")
    wait_until_leases_count()
    assert (do(outcomes.reclaim_stale), status()) == ([job_id], "lost")


def test_workers_are_woken_only_after_the_commit(users):
    def messages():
        with queue.celery().connection_for_read() as connection:
            return connection.default_channel.client.llen(queue.ANY_WORKER)

    def submit_and_fail():
        with database.transaction() as session:
            owner = session.scalars(select(User).where(User.name == "ada")).one()
            submission.submit(session, owner, JobRequest.model_validate(REQUEST))
            raise RuntimeError

    submit()
    assert messages() == 1
    with pytest.raises(RuntimeError):
        submit_and_fail()
    assert messages() == 1


def test_heartbeat_after_sign_off_marks_the_worker_up(users):
    with database.transaction() as session:
        session.add(Worker(id="w1", host="lab", slots=1, devices=[], stopped_at=datetime.now(UTC)))
    do(heartbeats.beat, "w1", [])
    with database.transaction() as session:
        assert session.get_one(Worker, "w1").stopped_at is None


def connect_as(servers, worker):
    """A connection with the name that a worker gives its own."""
    url = servers.database_url.replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(url, application_name=database.connection_name(worker))


def add_silent_worker(name):
    with database.transaction() as session:
        silent_since = func.clock_timestamp() - timedelta(seconds=60)
        session.add(Worker(id=name, host="lab", slots=1, devices=[], heartbeat_at=silent_since))


def silence_worker(worker, job_id):
    add_silent_worker(worker)
    age_heartbeat(job_id, 60)
    wait_until_leases_count()


def test_worker_frozen_while_sending_points_loses_its_jobs(users, servers):
    """It is frozen within COPY, where no time limit of PostgreSQL applies."""
    job_id = submit()
    claim("frozen")
    silence_worker("frozen", job_id)
    reclaimed = []

    def freeze():
        with connect_as(servers, "frozen") as connection:
            connection.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", [job_id])
            with connection.cursor().copy("COPY metric_names (name) FROM STDIN") as copy:
                assert do(outcomes.reclaim_stale) == []
                assert do(heartbeats.end_stale_transactions) == 0  # the transaction is younger than a lease
                deadline = time.monotonic() + 10
                while not reclaimed:
                    assert time.monotonic() < deadline
                    do(heartbeats.end_stale_transactions)
                    reclaimed.extend(do(outcomes.reclaim_stale))
                copy.write_row(["thawed"])

    with pytest.raises(psycopg.OperationalError):
        freeze()
    assert reclaimed == [job_id]
    assert do(heartbeats.end_stale_transactions) == 0


def test_transactions_of_a_live_worker_are_not_ended(users, servers):
    """Not even if one of its jobs is lost: the query runs on another connection."""
    job_id = submit()
    claim("alive")
    silence_worker("alive", job_id)
    with connect_as(servers, "alive") as connection:
        connection.execute("SELECT 1")
        time.sleep(1.2 * settings().lease_seconds)
        do(heartbeats.beat, "alive", [])
        assert do(heartbeats.end_stale_transactions) == 0
        assert do(outcomes.reclaim_stale) == [job_id]
        connection.execute("SELECT 1")
