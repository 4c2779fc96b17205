"""One fault at a time on the real stack; `lab.settle()` then checks that nothing was lost or done twice."""

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
from tests.acceptance.faults import injection
from tests.acceptance.faults.ledger import OWNERLESS_SECONDS
from tests.acceptance.faults.specs import SPECS, TOO_LARGE
from tests.acceptance.faults.stack import SETTINGS
from tests.acceptance.lab import alive, children
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)  # for a busy machine; each takes about 6 s on a quiet one


class TestTrainingProcess:
    def test_killed_process_counts_one_failure_and_the_job_resumes(self, lab):
        job_id = lab.train("ko soft")
        saved = lab.wait_for_checkpoints(job_id)
        os.kill(lab.child(job_id), signal.SIGKILL)
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        assert ("queued", "child_lost") in lab.events(job_id)
        lab.assert_continued(job_id, saved)

    def test_hang_in_native_code_is_killed_and_the_job_resumes(self, lab):
        job_id = lab.train()
        saved = lab.wait_for_checkpoints(job_id)
        child = lab.child(job_id)
        injection.hang(child)
        lab.settle()
        assert not alive(child)
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        lab.assert_continued(job_id, saved)

    def test_process_that_ignores_cancel_is_killed(self, lab):
        job_id = lab.train(ends=[Reason.CANCELLED])
        lab.wait_until_step(job_id)
        child = lab.child(job_id)
        os.kill(child, signal.SIGSTOP)
        began = time.monotonic()
        lab.api.post(f"/v1/jobs/{job_id}/cancel")
        lab.settle()
        assert time.monotonic() - began < 10
        assert not alive(child)
        assert lab.metrics(job_id)["train_loss"]["steps"], "the points before the cancel are kept"

    def test_out_of_memory_fails_the_job_without_a_retry(self, lab):
        other = lab.train()
        too_large = lab.submit(TOO_LARGE)
        lab.ledger.accept(too_large, None, [Reason.OUT_OF_MEMORY])
        lab.settle()
        assert lab.show(too_large)["attempt"] == 1, "a failure that the job itself causes is not retried"
        assert lab.show(other)["attempt"] == 1


class TestWorker:
    def test_jobs_of_a_killed_worker_resume_on_another(self, lab):
        ids = [lab.train(), lab.train("ko soft")]
        saved = {job_id: lab.wait_for_checkpoints(job_id) for job_id in ids}
        worker = lab.owner(ids[0])
        lost = [job_id for job_id in ids if lab.owner(job_id) is worker]
        descendants = [*children(worker.pid), *worker.training()]
        assert len(descendants) >= 2
        worker.signal(signal.SIGKILL)
        worker.process.wait()
        until(lambda: not any(alive(pid) for pid in descendants))
        lab.stack.start_worker()  # for the next test; here the other worker resumes the jobs
        lab.settle()
        for job_id in lost:
            job = lab.show(job_id)
            assert (job["attempt"], job["failures"]) == (2, 1)
            assert ("queued", "worker_lost") in lab.events(job_id)
            lab.assert_continued(job_id, saved[job_id])

    def test_drained_worker_requeues_its_jobs_without_a_failure(self, lab):
        drained, other = lab.stack.workers[:2]
        with lab.stack.frozen([other]):
            ids = [lab.train(), lab.train("ko soft"), lab.train()]
            for job_id in ids[:2]:
                lab.wait_until_step(job_id)
            began = time.monotonic()
            drained.signal(signal.SIGTERM)
            assert drained.process.wait(15) == 0
            assert time.monotonic() - began < 10
            waiting = [lab.show(job_id) for job_id in ids]
            assert [(job["status"], job["failures"], job["worker"]) for job in waiting] == [("queued", 0, None)] * 3
            assert [job["attempt"] for job in waiting] == [1, 1, 0]
            # The drain saves all steps, not only those up to the last periodic checkpoint.
            saved = {job["id"]: lab.progress_until(job["id"], job["progress"]["step"]) for job in waiting[:2]}
            with database.transaction() as session:
                stopped = session.scalars(select(Worker.id).where(Worker.stopped_at.is_not(None))).all()
            assert drained.id in stopped
        lab.stack.start_worker()
        lab.settle()
        ended = [lab.show(job_id) for job_id in ids]
        assert [(job["attempt"], job["failures"]) for job in ended] == [(2, 0), (2, 0), (1, 0)]
        for job_id in ids[:2]:
            lab.assert_continued(job_id, saved[job_id])

    def test_worker_frozen_beyond_its_lease_writes_nothing_more(self, lab):
        frozen = lab.stack.workers[0]
        ids = [lab.train() for _ in range(3)]  # more than the two slots of one worker
        saved = {job_id: lab.wait_for_checkpoints(job_id) for job_id in ids}
        reclaimed = [job_id for job_id in ids if lab.owner(job_id) is frozen]
        assert reclaimed
        with lab.stack.frozen([frozen]):
            for job_id in ids:
                lab.ended(job_id)
            before = {job_id: (lab.show(job_id), lab.metrics(job_id), lab.events(job_id)) for job_id in ids}
            assert [job["attempt"] for job, *_ in before.values()] == [2 if id_ in reclaimed else 1 for id_ in ids]
            with database.transaction() as session:
                thawed_at = session.scalar(select(func.clock_timestamp()))
        until(lambda: not frozen.training())

        def has_beaten() -> bool:
            with database.transaction() as session:
                return session.get_one(Worker, frozen.id).heartbeat_at > thawed_at

        until(has_beaten)
        lab.settle()
        assert {id_: (lab.show(id_), lab.metrics(id_), lab.events(id_)) for id_ in ids} == before
        for job_id in reclaimed:
            lab.assert_continued(job_id, saved[job_id])

    def test_worker_frozen_in_a_transaction_loses_its_jobs(self, lab):
        """Its locks must not prevent other workers from reclaiming its jobs."""
        job_id = lab.train()
        saved = lab.wait_for_checkpoints(job_id)
        worker = lab.owner(job_id)
        with ExitStack() as stack:
            with database.transaction() as session:
                session.execute(select(Job.id).where(Job.id == UUID(job_id)).with_for_update())
                waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                until(lambda: session.scalar(waiting))  # its heartbeat, which gets the lock when this transaction ends
                stack.enter_context(lab.stack.frozen([worker]))
            until(lambda: lab.show(job_id)["attempt"] == 2, OWNERLESS_SECONDS)
            lab.ended(job_id)
        until(lambda: not worker.training())
        lab.settle()
        lab.assert_continued(job_id, saved)

    def test_three_rolling_restarts_count_no_failure(self, lab):
        for _ in range(2):
            lab.stack.start_worker()
        lab.stack.have_workers(4)
        job_id = lab.train("ko soft", max_failures=1)
        drained, saved = [], None
        for attempt in range(1, 4):
            until(lambda attempt=attempt: attempt in [row.attempt for row in lab.checkpoints(job_id)])
            drained.append(lab.owner(job_id))
            saved = lab.wait_for_checkpoints(job_id)
            drained[-1].signal(signal.SIGTERM)
        assert [worker.process.wait(15) for worker in drained] == [0, 0, 0]
        lab.stack.start_worker()
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (4, 0)
        lab.assert_continued(job_id, saved, attempt=4)


class TestApi:
    def test_killed_api_loses_and_duplicates_no_submission(self, lab):
        running = [lab.train(), lab.train("ko soft")]
        for job_id in running:
            lab.wait_until_step(job_id, 1)
        accepted: list[str] = []

        def submit(number: int) -> str:
            response = lab.api.post("/v1/jobs", json=SPECS["tiny"] | {"tags": {"number": str(number)}})
            assert response.status_code == 202, response.text
            accepted.append(response.json()["id"])
            return accepted[-1]

        with ThreadPoolExecutor(4) as clients:
            submissions = [clients.submit(submit, number) for number in range(24)]
            for kills in range(1, 4):
                until(lambda kills=kills: len(accepted) >= 5 * kills)
                lab.stack.api.kill()
                lab.stack.api.start()
            ids = [submission.result() for submission in submissions]
        assert lab.stack.client.repeats > 0, "no request was repeated"
        assert len(set(ids)) == 24
        for job_id in ids:
            lab.ledger.accept(job_id, lab.references["tiny"])
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in running] == [1, 1]

    def test_request_repeated_after_a_lost_response_returns_the_job(self, lab):
        key, api = "once-and-only-once", lab.stack.api
        body = json.dumps(SPECS["tiny"])
        with closing(http.client.HTTPConnection("127.0.0.1", api.port)) as connection:
            headers = {"Authorization": f"Bearer {lab.stack.key}", "Idempotency-Key": key}
            connection.request("POST", "/v1/jobs", body, headers | {"Content-Type": "application/json"})
            until(stored_jobs)  # the response is never read
            api.kill()
        api.start()
        ids = {lab.api.post("/v1/jobs", json=SPECS["tiny"], key=key).json()["id"] for _ in range(3)}
        assert ids == set(stored_jobs())
        for job_id in ids:
            lab.ledger.accept(job_id, lab.references["tiny"])
        lab.settle()


class TestBroker:
    def test_jobs_run_after_the_broker_returns_empty(self, lab):
        valkey = lab.stack.servers.valkey
        running = lab.train()
        lab.wait_until_step(running, 1)
        os.kill(valkey.process.pid, signal.SIGKILL)
        until(lambda: not valkey.process.is_running())
        waiting = [lab.train("tiny") for _ in range(4)]
        valkey.start()
        after = lab.train("tiny")
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in (running, *waiting, after)] == [1] * 6

    def test_extra_wake_up_messages_have_no_effect(self, lab):
        ids = [lab.train("tiny") for _ in range(4)]
        for _ in range(20):
            queue.wake()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in ids] == [1] * 4

    def test_items_that_are_no_messages_stop_no_worker(self, lab):
        workers = lab.stack.workers
        ids = [lab.train(), lab.train()]
        with broker_connection() as broker:
            for item in len(workers) * ["not json", "[]", "{}", '{"body": "x", "properties": {}}']:
                broker.lpush(queue.ANY_WORKER, item)
            until(lambda: not broker.exists(queue.ANY_WORKER))
        ids += [lab.train("tiny") for _ in range(4)]
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in ids] == [1] * 6
        assert lab.stack.workers == workers, "a worker that takes no more messages ends with its last job"

    def test_lost_wake_up_message_does_not_lose_the_job(self, lab):
        with database.transaction() as session:  # as the API does, without the message
            user = session.scalars(select(User)).one()
            silent = str(submission.submit(session, user, JobRequest.model_validate(SPECS["tiny"])).id)
            assert session.info.pop("after_commit")
        lab.ledger.accept(silent, lab.references["tiny"])
        ids = [lab.train("tiny") for _ in range(8)]
        with broker_connection() as broker:
            broker.flushall()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in (silent, *ids)] == [1] * 9


class TestDatabase:
    def test_jobs_survive_a_restart_of_the_database(self, lab):
        ids = [lab.train(), lab.train("ko soft"), lab.train("tiny")]
        lab.wait_until_step(ids[0])
        postgres = lab.stack.servers.postgres
        postgres.stop()
        postgres.start()
        lab.settle()
        assert [lab.show(job_id)["attempt"] for job_id in ids] == [1] * 3

    def test_jobs_survive_an_outage_of_three_leases_under_load(self, lab):
        ids = [lab.train(name) for name in ("adam", "ko soft", "adam", "adam", "tiny")]
        for job_id in ids[:4]:
            lab.wait_until_step(job_id, 1)
        postgres = lab.stack.servers.postgres
        before = lab.stack.client.repeats
        with ThreadPoolExecutor(4) as clients:
            postgres.stop()
            submissions = [clients.submit(lab.train, "tiny") for _ in range(8)]
            time.sleep(3 * float(SETTINGS["KOTRAIN_LEASE_SECONDS"]))  # the fault itself
            until(lambda: lab.stack.client.repeats > before)
            assert not any(submission.done() for submission in submissions), "no submission can have succeeded"
            postgres.start()
            for submission in submissions:
                submission.result()
        lab.settle()
        assert {lab.show(str(job_id))["failures"] for job_id in lab.ledger.entries} <= {0, 1}


def stopped_between_writes(child: int, folder: Path) -> bool:
    """Stop a process unless it is writing a checkpoint into the folder, which a kill could interrupt."""
    os.kill(child, signal.SIGSTOP)
    if not list(folder.rglob("*.new")):
        return True
    os.kill(child, signal.SIGCONT)
    return False


class TestDisk:
    def test_training_continues_while_the_disk_is_full(self, lab, tmp_path):
        with injection.small_disk(tmp_path) as disk, lab.stack.frozen(lab.stack.workers):
            # Often, because the job must not end before its worker has seen the full disk.
            often = {"KOTRAIN_CHECKPOINT_SECONDS": "0.1"}
            worker = lab.stack.start_worker(disk.prefix, KOTRAIN_FILES=str(disk.folder), **often)
            disk.set_worker(worker.ready().pid)
            try:
                job_id = lab.train("long")
                saved = lab.wait_for_checkpoints(job_id)
                child = lab.child(job_id)
                os.kill(child, signal.SIGSTOP)  # on a busy machine, the job could end before the disk is full
                disk.fill()
                os.kill(child, signal.SIGCONT)
                until(lambda: "No space left on device" in " ".join(lab.notes(job_id, attempt=1)))
                assert lab.show(job_id)["status"] == "running"
                until(lambda: stopped_between_writes(child, disk.visible_folder))
                os.kill(child, signal.SIGKILL)
                lab.settle()
            finally:
                worker.end()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 1)
        lab.assert_continued(job_id, saved)

    def test_worker_runs_although_the_disk_of_its_log_is_full(self, lab):
        with lab.stack.frozen(lab.stack.workers):
            worker = lab.stack.start_worker(["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh"])
            try:
                assert lab.ended(lab.train("tiny"))["status"] == "succeeded"
                worker.signal(signal.SIGTERM)
                assert worker.process.wait(60) == 0
            finally:
                worker.end()
        lab.settle()

    @pytest.mark.parametrize("damage", [injection.truncate, injection.flip_a_bit], ids=["truncated", "a bit flipped"])
    def test_job_resumes_from_the_previous_checkpoint_if_the_newest_is_damaged(self, lab, damage):
        drained, other = lab.stack.workers[:2]
        with lab.stack.frozen([other]):
            job_id = lab.train()
            lab.wait_for_checkpoints(job_id, checkpoints=2)
            drained.signal(signal.SIGTERM)
            assert drained.process.wait(15) == 0
            before, newest = lab.checkpoints(job_id)
            saved = lab.progress_until(job_id, before.step)
            damage(Path(settings().home, "files", newest.file))
        lab.stack.start_worker()
        lab.settle()
        job = lab.show(job_id)
        assert (job["attempt"], job["failures"]) == (2, 0)
        lab.assert_continued(job_id, saved)
        notes = " ".join(lab.notes(job_id, attempt=2))
        assert f"continued after step {before.step}" in notes
        assert "a checkpoint could not be used" in notes


def stored_jobs() -> list[str]:
    with database.transaction() as session:
        return [str(job_id) for job_id in session.scalars(select(Job.id))]


def broker_connection() -> redis.Redis:
    """A connection to the broker."""
    address = urlsplit(settings().broker_url)
    return redis.Redis(unix_socket_path=address.path, password=address.password)
