"""One fault at a time, on the real stack. After each, `lab.settle()`: nothing was lost and nothing happened twice."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import redis
from sqlalchemy import func, select, text

from service.config import settings
from service.jobs import queue, submission
from service.jobs.requests import JobRequest
from service.specs.states import Reason
from service.storage import database
from service.storage.tables import Job, User, Worker
from tests.acceptance.faults import harm
from tests.acceptance.faults.ledger import OWNERLESS_SECONDS
from tests.acceptance.faults.specs import SPECS, TOO_LARGE
from tests.acceptance.faults.stack import SETTINGS
from tests.acceptance.lab import alive, children
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)  # on a machine that is busy with something else; about 6 s each on a quiet one


class TestTheTrainingProcess:
    def test_is_killed(self, lab):
        job_id = lab.train("ko soft")
        safe = lab.safe(job_id)
        os.kill(lab.child(job_id), signal.SIGKILL)
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        assert ("queued", "child_lost") in lab.events(job_id)
        lab.assert_continued(job_id, safe)

    def test_hangs_in_native_code_and_holds_the_interpreter(self, lab):
        job_id = lab.train()
        safe = lab.safe(job_id)
        child = lab.child(job_id)
        harm.hang(child)
        lab.settle()
        assert not alive(child)
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        lab.assert_continued(job_id, safe)

    def test_ignores_cancel(self, lab):
        job_id = lab.train(ends=[Reason.CANCELLED])
        lab.under_way(job_id)
        child = lab.child(job_id)
        os.kill(child, signal.SIGSTOP)
        asked = time.monotonic()
        lab.api.post(f"/v1/jobs/{job_id}/cancel")
        lab.settle()
        assert time.monotonic() - asked < 10
        assert not alive(child)
        assert lab.metrics(job_id)["train_loss"]["steps"], "what it measured until then is kept"

    def test_exhausts_memory(self, lab):
        beside = lab.train()
        eater = lab.submit(TOO_LARGE)
        lab.ledger.accept(eater, None, [Reason.OUT_OF_MEMORY])
        lab.settle()
        assert lab.show(eater)["attempt"] == 1, "the job's own fault is not tried again"
        assert lab.show(beside)["attempt"] == 1


class TestTheWorker:
    def test_is_killed(self, lab):
        ids = [lab.train(), lab.train("ko soft")]
        safe = {job_id: lab.safe(job_id) for job_id in ids}
        worker = lab.owner(ids[0])
        lost = [job_id for job_id in ids if lab.owner(job_id) is worker]
        below = [*children(worker.pid), *worker.training()]
        assert len(below) >= 2
        worker.signal(signal.SIGKILL)
        worker.process.wait()
        until(lambda: not any(alive(pid) for pid in below))
        lab.stack.start_worker()  # for the next test; here the other one goes on
        lab.settle()
        for job_id in lost:
            job = lab.show(job_id)
            assert (job["attempt"], job["failures"]) == (2, 1)
            assert ("queued", "worker_lost") in lab.events(job_id)
            lab.assert_continued(job_id, safe[job_id])

    def test_requeues_its_jobs_at_shutdown_without_counting_failures(self, lab):
        drained, other = lab.stack.workers[:2]
        with lab.stack.frozen([other]):
            ids = [lab.train(), lab.train("ko soft"), lab.train()]
            for job_id in ids[:2]:
                lab.under_way(job_id)
            asked = time.monotonic()
            drained.signal(signal.SIGTERM)
            assert drained.process.wait(15) == 0
            assert time.monotonic() - asked < 10
            waiting = [lab.show(job_id) for job_id in ids]
            assert [(job["status"], job["failures"], job["worker"]) for job in waiting] == [("queued", 0, None)] * 3
            assert [job["attempt"] for job in waiting] == [1, 1, 0]
            # All that was trained is safe, whenever the last checkpoint before that was.
            safe = {job["id"]: lab.safe_until(job["id"], job["progress"]["step"]) for job in waiting[:2]}
            with database.transaction() as session:
                stopped = session.scalars(select(Worker.id).where(Worker.stopped_at.is_not(None))).all()
            assert drained.id in stopped
        lab.stack.start_worker()
        lab.settle()
        ended = [lab.show(job_id) for job_id in ids]
        assert [(job["attempt"], job["failures"]) for job in ended] == [(2, 0), (2, 0), (1, 0)]
        for job_id in ids[:2]:
            lab.assert_continued(job_id, safe[job_id])

    def test_is_frozen_beyond_its_lease_and_writes_nothing_more(self, lab):
        frozen = lab.stack.workers[0]
        ids = [lab.train() for _ in range(4)]
        safe = {job_id: lab.safe(job_id) for job_id in ids}
        taken = [job_id for job_id in ids if lab.owner(job_id) is frozen]
        assert taken
        with lab.stack.frozen([frozen]):
            for job_id in ids:
                lab.ended(job_id)
            before = {job_id: (lab.show(job_id), lab.metrics(job_id), lab.events(job_id)) for job_id in ids}
            assert [job["attempt"] for job, *_ in before.values()] == [2 if id_ in taken else 1 for id_ in ids]
            with database.transaction() as session:
                thawed_at = session.scalar(select(func.clock_timestamp()))
        until(lambda: not frozen.training())

        def has_beaten() -> bool:
            with database.transaction() as session:
                return session.get_one(Worker, frozen.id).heartbeat_at > thawed_at

        until(has_beaten)
        lab.settle()
        assert {id_: (lab.show(id_), lab.metrics(id_), lab.events(id_)) for id_ in ids} == before
        for job_id in taken:
            lab.assert_continued(job_id, safe[job_id])

    def test_is_frozen_within_a_transaction_that_holds_its_jobs(self, lab):
        """What it has locked must not keep others from taking its jobs back."""
        job_id = lab.train()
        safe = lab.safe(job_id)
        worker = lab.owner(job_id)
        with ExitStack() as stack:
            with database.transaction() as session:
                session.execute(select(Job.id).where(Job.id == UUID(job_id)).with_for_update())
                waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                until(lambda: session.scalar(waiting))  # its heartbeat, which has the lock as soon as we let go
                stack.enter_context(lab.stack.frozen([worker]))
            until(lambda: lab.show(job_id)["attempt"] == 2, OWNERLESS_SECONDS)
            lab.ended(job_id)
        until(lambda: not worker.training())
        lab.settle()
        lab.assert_continued(job_id, safe)

    def test_three_rolling_restarts_in_a_row(self, lab):
        for _ in range(2):
            lab.stack.start_worker()
        lab.stack.have_workers(4)
        job_id = lab.train("ko soft", max_failures=1)
        drained, safe = [], None
        for times in range(1, 4):
            until(lambda times=times: [each for each in lab.checkpoints(job_id) if each.attempt == times])
            drained.append(lab.owner(job_id))
            safe = lab.safe(job_id)
            drained[-1].signal(signal.SIGTERM)
        assert [worker.process.wait(15) for worker in drained] == [0, 0, 0]
        lab.stack.start_worker()
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (4, 0)
        lab.assert_continued(job_id, safe, attempt=4)


class TestTheApi:
    def test_is_killed_while_clients_submit_and_jobs_run(self, lab):
        running = [lab.train(), lab.train("ko soft")]
        for job_id in running:
            lab.under_way(job_id, 1)
        accepted: list[str] = []

        def submit(number: int) -> str:
            response = lab.api.post("/v1/jobs", json=SPECS["tiny"] | {"tags": {"number": str(number)}})
            assert response.status_code == 202, response.text
            accepted.append(response.json()["id"])
            return accepted[-1]

        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(submit, number) for number in range(24)]
            for kills in range(1, 4):
                until(lambda kills=kills: len(accepted) >= 5 * kills)
                lab.stack.api.kill()
                lab.stack.api.start()
            ids = [each.result() for each in asked]
        assert lab.stack.caller.repeats > 0, "no client noticed anything"
        assert len(set(ids)) == 24
        for job_id in ids:
            lab.ledger.accept(job_id, lab.references["tiny"])
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in running] == [1, 1]

    def test_is_killed_after_it_has_taken_a_job_and_before_the_client_hears_of_it(self, lab):
        key, api = "once-and-only-once", lab.stack.api
        body = json.dumps(SPECS["tiny"])
        with closing(http.client.HTTPConnection("127.0.0.1", api.port)) as connection:
            headers = {"Authorization": f"Bearer {lab.stack.key}", "Idempotency-Key": key}
            connection.request("POST", "/v1/jobs", body, headers | {"Content-Type": "application/json"})
            until(stored_jobs)  # and nobody reads the answer
            api.kill()
        api.start()
        ids = {lab.api.post("/v1/jobs", json=SPECS["tiny"], key=key).json()["id"] for _ in range(3)}
        assert ids == set(stored_jobs())
        for job_id in ids:
            lab.ledger.accept(job_id, lab.references["tiny"])
        lab.settle()


class TestTheBroker:
    def test_is_killed_and_comes_back_empty(self, lab):
        valkey = lab.stack.servers.valkey
        running = lab.train()
        lab.under_way(running, 1)
        os.kill(valkey.process.pid, signal.SIGKILL)
        until(lambda: not valkey.process.is_running())
        waiting = [lab.train("tiny") for _ in range(4)]
        valkey.start()
        after = lab.train("tiny")
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in (running, *waiting, after)] == [1] * 6

    def test_wake_up_message_is_repeated(self, lab):
        ids = [lab.train("tiny") for _ in range(4)]
        for _ in range(20):
            queue.ring()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in ids] == [1] * 4

    def test_wake_up_message_is_lost(self, lab):
        with database.transaction() as session:  # the API's way, but for the bell
            user = session.scalars(select(User)).one()
            silent = str(submission.submit(session, user, JobRequest.model_validate(SPECS["tiny"])).id)
            assert session.info.pop("after_commit")
        lab.ledger.accept(silent, lab.references["tiny"])
        ids = [lab.train("tiny") for _ in range(8)]
        with broker_itself() as broker:
            broker.flushall()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in (silent, *ids)] == [1] * 9


class TestTheDatabase:
    def test_is_restarted(self, lab):
        ids = [lab.train(), lab.train("ko soft"), lab.train("tiny")]
        lab.under_way(ids[0])
        postgres = lab.stack.servers.postgres
        postgres.stop()
        postgres.start()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in ids] == [1] * 3

    def test_is_away_for_three_leases_under_load(self, lab):
        ids = [lab.train(name) for name in ("adam", "ko soft", "adam", "ko soft", "adam", "tiny")]
        for job_id in ids[:4]:
            lab.under_way(job_id, 1)
        postgres = lab.stack.servers.postgres
        before = lab.stack.caller.repeats
        with ThreadPoolExecutor(4) as clients:
            postgres.stop()
            asked = [clients.submit(lab.train, "tiny") for _ in range(8)]
            time.sleep(3 * float(SETTINGS["KOTRAIN_LEASE_SECONDS"]))  # the fault itself
            until(lambda: lab.stack.caller.repeats > before)
            assert not any(each.done() for each in asked), "nobody can have been given a job"
            postgres.start()
            for each in asked:
                each.result()
        lab.settle()
        assert {lab.show(str(job_id))["failures"] for job_id in lab.ledger.entries} <= {0, 1}


class TestTheDisk:
    def test_is_full_while_a_checkpoint_is_written(self, lab, tmp_path):
        with harm.small_disk(tmp_path) as disk, lab.stack.frozen(lab.stack.workers):
            worker = lab.stack.start_worker(disk.prefix, KOTRAIN_FILES=str(disk.folder))
            disk.belongs_to(worker.ready().pid)
            try:
                job_id = lab.train()
                safe = lab.safe(job_id)
                disk.fill()
                until(lambda: "No space left on device" in " ".join(lab.notes(job_id, attempt=1)))
                assert lab.show(job_id)["status"] == "running"
                os.kill(lab.child(job_id), signal.SIGKILL)
                lab.settle()
            finally:
                worker.end()
            assert list(disk.folder.rglob("*.new")) == []
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        lab.assert_continued(job_id, safe)

    @pytest.mark.parametrize("damage", [harm.truncate, harm.flip_a_bit], ids=["truncated", "a bit flipped"])
    def test_has_damaged_the_newest_checkpoint(self, lab, damage):
        drained, other = lab.stack.workers[:2]
        with lab.stack.frozen([other]):
            job_id = lab.train()
            lab.safe(job_id, checkpoints=2)
            drained.signal(signal.SIGTERM)
            assert drained.process.wait(15) == 0
            before, newest = lab.checkpoints(job_id)
            safe = lab.safe_until(job_id, before.step)
            damage(Path(settings().home, "files", newest.file))
        lab.stack.start_worker()
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 0)
        lab.assert_continued(job_id, safe)
        notes = " ".join(lab.notes(job_id, attempt=2))
        assert f"continued after step {before.step}" in notes
        assert "a checkpoint could not be used" in notes


def stored_jobs() -> list[str]:
    with database.transaction() as session:
        return [str(job_id) for job_id in session.scalars(select(Job.id))]


def broker_itself() -> redis.Redis:
    """A connection of our own to the broker."""
    address = urlsplit(settings().broker_url)
    return redis.Redis(unix_socket_path=address.path, password=address.password)
