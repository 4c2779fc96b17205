"""The calls that users and workers make about jobs, each in a transaction of its own."""

from __future__ import annotations

import time
from uuid import UUID

from sqlalchemy import select, text

from service.config import settings
from service.jobs import claims, submission
from service.jobs.requests import JobRequest
from service.storage import database
from service.storage.tables import Job, JobEvent, User

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


def submit(user="ada", **fields):
    with database.transaction() as session:
        owner = session.scalars(select(User).where(User.name == user)).one()
        return submission.submit(session, owner, JobRequest.model_validate(REQUEST | fields)).id


def claim(worker="w1", *, has_cuda=False):
    with database.transaction() as session:
        return claims.claim(session, worker, has_cuda=has_cuda)


def do(call, *args, **kwargs):
    """Call a function with a session as its first argument."""
    with database.transaction() as session:
        return call(session, *args, **kwargs)


def load(job_id: UUID) -> Job:
    with database.transaction() as session:
        return session.get_one(Job, job_id)


def events(job_id):
    with database.transaction() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row.status for row in rows]


def age_heartbeat(job_id, seconds):
    """Make a job's last heartbeat `seconds` older."""
    with database.transaction() as session:
        session.execute(
            text("UPDATE jobs SET heartbeat_at = heartbeat_at - make_interval(secs => :s) WHERE id = :id"),
            {"s": seconds, "id": job_id},
        )


def wait_until_leases_count():
    """Wait until the database has been up for a lease: no job is reclaimed earlier, and a test may restart it."""
    uptime = text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())")
    while do(lambda session: session.scalar(uptime)) <= settings().lease_seconds:
        time.sleep(0.05)
