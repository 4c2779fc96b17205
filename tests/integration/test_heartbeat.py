"""The heartbeat thread against the real database, and against one that refuses writes."""

import threading
import time
from types import SimpleNamespace
from uuid import UUID

import psycopg
import psycopg.sql
import pytest
from sqlalchemy import make_url, select, text

from service.config import settings
from service.jobs import claims, submission
from service.jobs.heartbeats import Instruction
from service.jobs.requests import JobRequest
from service.metrics import read, write
from service.storage import database
from service.storage.tables import Job, User
from tests import connections
from tests.waiting import until
from workers.heartbeat import AttemptState, HeartbeatThread, retry_while_database_is_down
from workers.maintenance import Maintenance

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


def points(*steps):
    return {"loss": ([*steps], [1.0 / step for step in steps], [0.1 * step for step in steps])}


@pytest.fixture
def claim(key):
    return claimed()


def claimed():
    with database.transaction() as session:
        submission.submit(session, session.scalars(select(User)).one(), JobRequest.model_validate(REQUEST))
    with database.transaction() as session:
        return claims.claim(session, "w1", has_cuda=False)


@pytest.fixture
def heartbeat_thread(schema, monkeypatch):
    monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "0.02")
    settings.cache_clear()
    heartbeat_thread = HeartbeatThread("w1")
    heartbeat_thread.start()
    yield heartbeat_thread
    heartbeat_thread.stop()
    monkeypatch.undo()
    settings.cache_clear()


def stored_steps(job_id: UUID) -> list[int]:
    with database.transaction() as session:
        curves = read.curves(session, [job_id]).get(job_id)
    return curves["loss"].steps.tolist() if curves else []


def test_sealed_batch_never_changes(claim):
    state = AttemptState(claim)
    state.add(2, points(1, 2))
    first = state.seal()
    state.add(3, points(3))
    both = state.seal()
    assert both[0] is first[0]
    assert [batch.points["loss"][0] for batch in both] == [[1, 2], [3]]
    state.mark_stored(first)
    assert [batch.points["loss"][0] for batch in state.seal()] == [[3]]


def test_points_arrive_once(heartbeat_thread, claim):
    state = heartbeat_thread.register(claim)
    for step in range(1, 6):
        state.add(step, points(step))
        until(lambda step=step: step in stored_steps(claim.job_id))
    assert stored_steps(claim.job_id) == [1, 2, 3, 4, 5]
    assert state.seal() == []


@pytest.mark.parametrize("error", [psycopg.errors.DiskFull("no room"), RuntimeError("a defect")])
def test_thread_survives_errors_and_sends_again(heartbeat_thread, claim, monkeypatch, error):
    failed = []

    def fail(*_):
        failed.append(1)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(write, "append", fail)
        state = heartbeat_thread.register(claim)
        state.add(1, points(1))
        until(lambda: len(failed) >= 2)
    until(lambda: stored_steps(claim.job_id) == [1])
    assert heartbeat_thread.is_alive()


def test_unstorable_batch_does_not_delay_other_jobs(heartbeat_thread, claim):
    sound, poisonous = heartbeat_thread.register(claim), heartbeat_thread.register(claimed())
    poisonous.add(1, {"no name \0 for Postgres": ([1], [1.0], [0.1])})
    for step in range(1, 4):
        sound.add(step, points(step))
        until(lambda step=step: stored_steps(claim.job_id) == list(range(1, step + 1)))
    with database.transaction() as session:
        rows = {row.id: row for row in session.scalars(select(Job))}
        assert rows[claim.job_id].heartbeat_at > rows[poisonous.claim.job_id].heartbeat_at
    assert rows[poisonous.claim.job_id].step == 0
    assert (sound.instruction, sound.seal(), len(poisonous.seal())) == (Instruction.CONTINUE, [], 1)


def test_locked_row_does_not_delay_other_jobs(heartbeat_thread, claim):
    """An API that is frozen while it cancels a job holds such a lock."""
    sound, locked = heartbeat_thread.register(claim), heartbeat_thread.register(claimed())
    with database.transaction() as frozen:
        frozen.execute(select(Job.id).where(Job.id == locked.claim.job_id).with_for_update())
        locked.add(1, points(1))
        for step in range(1, 3):
            sound.add(step, points(step))
            until(lambda step=step: stored_steps(claim.job_id) == list(range(1, step + 1)))
        assert stored_steps(locked.claim.job_id) == []
    until(lambda: stored_steps(locked.claim.job_id) == [1])
    assert (sound.instruction, locked.instruction) == (Instruction.CONTINUE, Instruction.CONTINUE)


def test_backlog_is_sent_in_portions(claim, monkeypatch):
    monkeypatch.setattr("workers.heartbeat.MAX_SENT_POINTS", 5)
    monkeypatch.setattr("workers.heartbeat.MAX_PENDING_POINTS", 11)
    heartbeat_thread = HeartbeatThread("w1")
    state = heartbeat_thread.register(claim)
    for first in (1, 4, 7, 10):  # the database was unreachable for four heartbeats
        assert not state.is_full
        state.add(first + 2, points(first, first + 1, first + 2))
        state.seal()
    assert state.is_full
    for last in (3, 6, 9, 12):
        heartbeat_thread._beat()
        assert stored_steps(claim.job_id) == list(range(1, last + 1))
        assert not state.is_full
    state.add(20, points(*range(13, 21)))  # a single batch is never split, however large
    heartbeat_thread._beat()
    assert stored_steps(claim.job_id) == list(range(1, 21))


def test_job_claimed_again_by_its_worker_stops_the_old_attempt(heartbeat_thread, claim):
    old = heartbeat_thread.register(claim)
    new = heartbeat_thread.register(claim)
    assert (old.instruction, new.instruction) == (Instruction.LOST, Instruction.CONTINUE)
    heartbeat_thread.unregister(old)
    new.add(1, points(1))
    until(lambda: stored_steps(claim.job_id) == [1])


def test_worker_waits_for_a_read_only_database(claim):
    """A demoted primary is read-only, and another server may take over its address soon."""
    waits, servers = [], set()

    def write(session):
        servers.add(session.scalar(text("SELECT pg_backend_pid()")))
        if len(servers) == 1:
            session.execute(text("SET TRANSACTION READ ONLY"))
        session.execute(text("UPDATE jobs SET step = 7"))
        return "written"

    assert retry_while_database_is_down(write, lambda: bool(waits.append(1))) == "written"
    assert len(waits) == 1
    assert len(servers) == 2, "the connection to the standby was used again"


def test_no_job_is_reclaimed_for_a_lease_after_a_database_outage(claim, servers, monkeypatch):
    """Otherwise the first worker to look would take the jobs of live workers, whose heartbeats arrive a bit later."""
    monkeypatch.setenv("KOTRAIN_LEASE_SECONDS", "2")
    monkeypatch.setenv("KOTRAIN_MAINTENANCE_SECONDS", "0.05")
    settings.cache_clear()
    host = SimpleNamespace(job_ended=threading.Event(), draining=threading.Event(), idle_slots=0)
    role = psycopg.sql.Identifier(make_url(servers.database_url).username)
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(psycopg.sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role))
        connections.close_all()
        maintenance = Maintenance(host)
        maintenance.start()
        try:
            time.sleep(3)  # longer than a lease: no heartbeat could have been stored
            admin.execute("UPDATE jobs SET heartbeat_at = clock_timestamp() - interval '3 s'")
            admin.execute(psycopg.sql.SQL("ALTER ROLE {} RESET default_transaction_read_only").format(role))
            connections.close_all()
            until(lambda: database.is_read_only() is False)
            time.sleep(1)
            row = "SELECT status, failures FROM jobs"
            assert admin.execute(row).fetchone() == ("running", 0)
            until(lambda: admin.execute(row).fetchone() == ("queued", 1))  # no heartbeat follows, so the job is lost
        finally:
            admin.execute(psycopg.sql.SQL("ALTER ROLE {} RESET default_transaction_read_only").format(role))
            maintenance.stop()
            monkeypatch.undo()
            settings.cache_clear()


def test_worker_waits_only_for_an_unreachable_database(claim, servers):
    with pytest.raises(Exception, match="nonsense"):
        retry_while_database_is_down(lambda session: session.execute(text("SELECT nonsense")), give_up=lambda: False)
    waits = []
    servers.postgres.stop()
    try:
        stored = retry_while_database_is_down(
            lambda session: session.get(Job, claim.job_id), lambda: waits.append(1) is None
        )
    finally:
        servers.postgres.start()
    assert (stored, waits) == (None, [1])
    assert (
        retry_while_database_is_down(lambda session: session.get(Job, claim.job_id), give_up=lambda: False).id
        == claim.job_id
    )
