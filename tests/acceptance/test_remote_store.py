"""Checkpoints in a store other than a folder: fsspec's memory, which is part of the worker's process."""

import os
import signal

import pytest
from sqlalchemy import select

from service.storage import database
from service.storage.tables import Checkpoint, JobEvent
from tests.acceptance.lab import FAST, JOB, Lab, running_worker
from tests.waiting import until

REMOTE = FAST | {"KOTRAIN_FILES": "memory://kotrain", "KOTRAIN_CHECKPOINT_SECONDS": "0.3"}


@pytest.fixture
def lab(api):
    return Lab(api)


def newest(job_id):
    with database.transaction() as session:
        steps = select(Checkpoint.step).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc())
        return session.scalars(steps.limit(1)).first()


def test_job_resumes_from_a_checkpoint_in_a_remote_store(lab):
    with running_worker(REMOTE) as worker:
        job_id = lab.submit(JOB | {"budget": {"steps": 4000}})
        until(lambda: newest(job_id))
        child = worker.child()
        os.kill(child, signal.SIGKILL)
        job = lab.ended(job_id)
    assert (job["status"], job["attempt"], job["summary"]["steps"]) == ("succeeded", 2, 4000)
    with database.transaction() as session:
        messages = session.scalars(
            select(JobEvent.message).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
        ).all()
    assert any(message and message.startswith("continued after step") for message in messages)
    steps = lab.metrics(job_id)["train_loss"]["steps"]
    assert steps == list(range(10, 4001, 10))
