"""Workers that are stopped, killed, frozen or cut off: what was accepted comes to an honest end all the same."""

import signal

import pytest
from sqlalchemy import select, text

from service import db
from service.models import Worker
from tests.acceptance.lab import LONG, Lab, alive, children, running_worker, until


@pytest.fixture
def lab(api):
    """The API; each test brings its own workers."""
    return Lab(api)


def lab_workers() -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(text("SELECT id FROM workers")))


class TestAWorkersEnd:
    def test_drain_gives_jobs_back_without_blame(self, lab):
        with running_worker() as worker:
            ids = [lab.submit(LONG, seed=seed) for seed in range(3)]
            for job_id in ids[:2]:
                lab.training(job_id)
            worker.signal(signal.SIGTERM)
            assert worker.process.wait(10) == 0
        jobs = [lab.show(job_id) for job_id in ids]
        assert [(job["status"], job["failures"], job["worker"]) for job in jobs] == [("queued", 0, None)] * 3
        assert [job["attempt"] for job in jobs] == [1, 1, 0]
        with db.transaction() as session:
            assert session.scalars(select(Worker)).one().stopped_at is not None

    def test_a_killed_worker_leaves_no_process_and_loses_no_job(self, lab):
        with running_worker() as worker:
            job_id = lab.submit(budget={"steps": 2000})
            lab.training(job_id)
            below = [*children(worker.pid), *worker.training()]
            assert len(below) >= 2
            worker.signal(signal.SIGKILL)
            worker.process.wait()
            until(lambda: not any(alive(pid) for pid in below))
        with running_worker():
            job = lab.ended(job_id)
        assert (job["status"], job["attempt"], job["failures"]) == ("succeeded", 2, 1)
        assert ("queued", "worker_lost") in lab.events(job_id)

    def test_a_frozen_worker_writes_nothing_more(self, lab):
        with running_worker() as frozen, running_worker():
            until(lambda: len(lab_workers()) == 2)
            jobs_of = {}
            ids = [lab.submit(seed=seed, budget={"steps": 1500}) for seed in range(4)]
            for job_id in ids:
                lab.training(job_id)
                jobs_of.setdefault(lab.show(job_id)["worker"], []).append(job_id)
            frozen.signal(signal.SIGSTOP)
            for job_id in ids:
                assert lab.ended(job_id)["status"] == "succeeded"
            before = {job_id: (lab.show(job_id), lab.metrics(job_id)) for job_id in ids}
            assert sum(job["attempt"] == 2 for job, _ in before.values()) == 2
            frozen.signal(signal.SIGCONT)
            until(lambda: not frozen.training())
            assert {job_id: (lab.show(job_id), lab.metrics(job_id)) for job_id in ids} == before
