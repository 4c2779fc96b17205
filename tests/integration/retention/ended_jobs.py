"""Creates jobs that ended some time ago, with their points, checkpoints and files."""

import os
from datetime import timedelta

from sqlalchemy import func, insert, select, update

from service.jobs import claims, outcomes, submission
from service.jobs.requests import JobRequest
from service.metrics import write
from service.operations import retention
from service.operations.retention import Policy
from service.specs.engine import ENGINE_VERSION
from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage import database
from service.storage.tables import Checkpoint, Job

DAY, HOUR = 86_400, 3600


REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


ENVIRONMENT = {"torch": "2.14.1", "device_kind": "cpu", "engine_version": ENGINE_VERSION, "data_hash": "aa"}


CURVE = ([1, 2, 3], [0.5, 0.8, 0.9], [0.1, 0.2, 0.3])


POINTS = {"val_accuracy": CURVE, "val_loss": CURVE, "train_loss": CURVE}


def submit(ada, **fields):
    with database.transaction() as session:
        return submission.submit(session, ada, JobRequest.model_validate(REQUEST | fields)).id


def run(ada, **fields):
    """Submit and claim a job."""
    job_id = submit(ada, **fields)
    with database.transaction() as session:
        claim = claims.claim(session, "w", has_cuda=False)
    assert claim.job_id == job_id
    return claim


def end(claim, days_ago=0.0, reason=Reason.COMPLETED, points=POINTS, hit=None):
    """Finish a job with these points, as if `days_ago`."""
    summary = Summary(
        reason=reason, steps=3, epochs=1.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
        metrics={"test_accuracy": 0.9, "val_accuracy": 0.9, "val_loss": 0.9}, best_step=3, target=hit,
    )  # fmt: skip
    with database.transaction() as session:
        write.append(session, [(claim.job_id, points)])
        assert outcomes.finish(session, claim, reason, summary=summary, environment=ENVIRONMENT)
    age(claim.job_id, days_ago)
    return claim.job_id


def age(job_id, days):
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=Job.finished_at - timedelta(days=days)))


def write_file(files, job_id, attempt, name, hours_old=2.0, size=10):
    """Store a file of an attempt; return its name."""
    name = f"jobs/{job_id}/{attempt}/{name}"
    path = files.place(name)
    path.write_bytes(b"x" * size)
    modified = path.stat().st_mtime - HOUR * hours_old
    os.utime(path, (modified, modified))
    files.put(name)
    return name


def checkpoint(files, job_id, attempt, step):
    """Store a checkpoint's file and row; return the file's name."""
    name = write_file(files, job_id, attempt, f"{step}.pt", hours_old=48)
    row = {
        "job_id": job_id,
        "attempt": attempt,
        "step": step,
        "file": name,
        "size_bytes": 10,
        "sha256": "",
        "seconds": 1,
    }
    with database.transaction() as session:
        session.execute(insert(Checkpoint).values(row))
    return name


def collect(files, days=1.0, points_days=None, **options):
    return retention.collect(Policy(days, points_days, **options), files)


def names(files):
    return {name for name, _ in files.names()}


def count(table):
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table))
