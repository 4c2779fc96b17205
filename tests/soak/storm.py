"""Random faults on a real stack under load: how each is injected and undone, and the clients that submit jobs."""

from __future__ import annotations

import heapq
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from service.jobs import queue
from service.specs.states import JobStatus, Reason
from service.storage import database
from service.storage.tables import Checkpoint, Job
from tests.acceptance.faults import injection
from tests.acceptance.faults.ledger import Ledger, Result
from tests.acceptance.faults.specs import SPECS, TOO_LARGE
from tests.acceptance.faults.stack import PATIENCE_SECONDS, RetryingClient, Stack
from tests.acceptance.lab import RunningWorker, alive, children
from tests.waiting import until
from workers.heartbeat import is_away

WORKERS = 2
BACKLOG = 8
"""Maximum number of unfinished jobs while new ones are submitted."""
LOOK_SECONDS = 0.05
DRAIN_SECONDS = 20.0


class Jobs:
    """Clients that submit, cancel and repeat requests; each job must give the result of an undisturbed run."""

    def __init__(self, url: str, key: str, ledger: Ledger, references: Mapping[str, Result], seed: int) -> None:
        self._client = RetryingClient(url, key)
        self._ledger, self._references = ledger, references
        self._random = random.Random(seed)
        self._pool = ThreadPoolExecutor(4)
        self._pending: list[Future[None]] = []
        self.counts: Counter[str] = Counter()

    def offer(self, max_unfinished: int = BACKLOG) -> None:
        """Have a client submit a random job, unless `max_unfinished` are unfinished; it may repeat or cancel it."""
        self._pending = [call for call in self._pending if not self._is_done(call)]
        if self._ledger.unfinished + len(self._pending) < max_unfinished:
            name = self._random.choice(list(self._references))
            submits_twice, cancels_after = self._random.random() < 0.2, None
            if self._random.random() < 0.1:
                cancels_after = self._random.uniform(0, 3)
            self._send(self._submit, name, submits_twice, cancels_after)

    def offer_too_large(self) -> None:
        """Have a client submit a job that exceeds its memory limit."""
        self._send(self._submit_too_large)

    def cancel(self, job_ids: Iterable[UUID]) -> None:
        """Have a client cancel these jobs."""
        for job_id in job_ids:
            self._send(self._cancel, job_id)

    def close(self) -> None:
        """Wait for all pending calls."""
        for call in self._pending:
            call.result(PATIENCE_SECONDS)
        self._pool.shutdown()
        self._client.close()

    @property
    def repeats(self) -> int:
        """Number of requests that had to be sent again."""
        return self._client.repeats

    def _send(self, call: Callable[..., None], *arguments: Any) -> None:
        self._pending.append(self._pool.submit(call, *arguments))

    @staticmethod
    def _is_done(call: Future[None]) -> bool:
        if call.done():
            call.result()  # raises the call's error
        return call.done()

    def _submit(self, name: str, submits_twice: bool, cancels_after: float | None) -> None:
        job_id = self._post(SPECS[name], submits_twice)
        ends = {Reason.TARGET_REACHED if name == "stops at target" else Reason.COMPLETED}
        self._ledger.accept(
            job_id, self._references[name], ends if cancels_after is None else {*ends, Reason.CANCELLED}
        )
        if cancels_after is not None:
            time.sleep(cancels_after)  # as a user who reconsiders
            self._cancel(job_id)

    def _submit_too_large(self) -> None:
        self._ledger.accept(self._post(TOO_LARGE, False), None, [Reason.OUT_OF_MEMORY])

    def _post(self, spec: Mapping[str, Any], twice: bool) -> UUID:
        key = f"soak-{threading.get_ident()}-{time.monotonic_ns()}"
        answers = [self._client.post("/v1/jobs", json=spec, key=key) for _ in range(1 + twice)]
        assert {answer.status_code for answer in answers} == {202}, answers[0].text
        (job_id,) = {answer.json()["id"] for answer in answers}
        self.counts["submitted twice"] += twice
        return UUID(job_id)

    def _cancel(self, job_id: UUID) -> None:
        entry = self._ledger.entries[job_id]
        self._ledger.accept(job_id, entry.reference, entry.ends | {Reason.CANCELLED})
        answer = self._client.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code in (200, 202, 409), answer.text  # 409: the job has ended already
        self.counts["cancelled"] += answer.is_success


class Storm:
    """Injects one fault after another, in an order that the seed decides, and undoes each after a while."""

    def __init__(self, stack: Stack, files: Path, seed: int) -> None:
        self.stack, self._files = stack, files
        self.random = random.Random(seed)
        self._undos: list[tuple[float, int, Callable[[], None]]] = []
        self._deck: list[str] = []
        self._draining: set[RunningWorker] = set()
        self._down: set[str] = set()
        """Services that are stopped, and "disk" while it is full."""
        self.ledger = Ledger()
        self.injected: Counter[str] = Counter()
        self.stubborn: list[str] = []
        """Last output of the workers that did not stop in time when drained."""
        self.disk: injection.SmallDisk | None = None
        self.jobs: Jobs

    FAULTS: Mapping[str, int] = {  # number of times that each is in the deck
        "training process killed": 3,
        "training process hung": 1,
        "cancel ignored": 1,
        "worker killed": 2,
        "worker drained": 2,
        "worker frozen": 2,
        "API killed": 2,
        "broker killed": 2,
        "messages lost": 1,
        "messages sent too often": 1,
        "database restarted": 1,
        "database away": 1,
        "database killed": 1,
        "disk full": 2,
        "checkpoint damaged": 3,
        "memory eaten": 1,
    }

    # --- order of the faults ---

    def inject(self) -> str | None:
        """Inject the next possible fault of the deck; return its name, or None if none is possible now."""
        if len(self._deck) < len(self.FAULTS):  # faults that are not possible now stay in it
            more = [name for name, number in self.FAULTS.items() for _ in range(number - 1)]
            self._deck += self._shuffled(self.FAULTS) + self._shuffled(more)  # each once before any repeats
        for index, name in enumerate(self._deck):
            if getattr(self, "_" + name.lower().replace(" ", "_"))():
                del self._deck[index]
                self.injected[name] += 1
                return name
        return None

    def step(self) -> None:
        """Undo the faults that are due, and replace dead workers."""
        while self._undos and self._undos[0][0] <= time.monotonic():
            heapq.heappop(self._undos)[2]()
        for _ in range(WORKERS - len(self.stack.workers)):
            self.stack.start_worker()
        with suppress_outage(self.ledger), database.transaction() as session:
            self.ledger.look(session, self.stack.living())

    def undo_all(self) -> None:
        """Wait until every fault is undone, each at its time."""
        while self._undos:
            self.step()
            time.sleep(LOOK_SECONDS)
        self.step()

    def _shuffled(self, names: Iterable[str]) -> list[str]:
        chosen = list(names)
        self.random.shuffle(chosen)
        return chosen

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undos, (time.monotonic() + seconds, sum(self.injected.values()), undo))

    def _mark_down(self, name: str, seconds: float, restore: Callable[[], None]) -> None:
        def undo() -> None:
            restore()
            self._down.discard(name)

        self._down.add(name)
        self._later(seconds, undo)

    # --- choices ---

    def _ready_workers(self) -> list[RunningWorker]:
        return [worker for worker in self.stack.workers if worker.is_living and worker.is_ready]

    def _worker(self) -> RunningWorker | None:
        """A random ready worker; None if too few are ready, so that the last one is never taken away."""
        ready = [worker for worker in self._ready_workers() if worker not in self._draining]
        return self.random.choice(ready) if len(ready) >= WORKERS else None

    def _child(self) -> tuple[RunningWorker, int] | None:
        """A random training process and its worker."""
        processes = [(worker, pid) for worker in self._ready_workers() for pid in worker.training()]
        return self.random.choice(processes) if processes else None

    def _running_on(self, worker: RunningWorker) -> list[UUID]:
        query = select(Job.id).where(Job.worker_id == worker.id, Job.status == JobStatus.RUNNING)
        with database.transaction() as session:
            return list(session.scalars(query))

    # --- training processes ---

    def _training_process_killed(self) -> bool:
        process = self._child()
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process[1], signal.SIGKILL)
        return process is not None

    def _training_process_hung(self) -> bool:
        process = self._child()
        with suppress(OSError):  # it ended in the meantime
            if process is not None:
                injection.hang(process[1])
                return True
        return False

    def _cancel_ignored(self) -> bool:
        process = self._child()
        if process is None or "database" in self._down:
            return False
        worker, child = process
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
        # The process does not show which job it runs; the worker's other jobs end at once.
        self.jobs.cancel(job_id for job_id in self._running_on(worker) if job_id in self.ledger.entries)
        return True

    def _memory_eaten(self) -> bool:
        self.jobs.offer_too_large()
        return True

    # --- workers ---

    def _worker_killed(self) -> bool:
        worker = self._worker()
        if worker is not None:
            worker.signal(signal.SIGKILL)
            worker.process.wait()
        return worker is not None

    def _worker_drained(self) -> bool:
        worker = self._worker()
        if worker is None:
            return False
        worker.signal(signal.SIGTERM)
        self._draining.add(worker)
        self._later(DRAIN_SECONDS, lambda: self._kill_stubborn(worker))
        self.stack.start_worker()
        return True

    def _kill_stubborn(self, worker: RunningWorker) -> None:
        """Kill a drained worker as its operator would: during an outage of the database it may need longer to stop."""
        if worker.is_running:
            self.stubborn.append(worker.log()[-2000:])
            worker.process.kill()
            worker.process.wait()

    def _worker_frozen(self) -> bool:
        worker = self._worker()
        if worker is not None:
            worker.signal(signal.SIGSTOP)
            self._later(self.random.uniform(1, 10), lambda: worker.signal(signal.SIGCONT))  # the lease lasts 5 s
        return worker is not None

    # --- API and broker ---

    def _api_killed(self) -> bool:
        if "api" in self._down:
            return False
        self.stack.api.kill()
        self._mark_down("api", self.random.uniform(0, 2), self.stack.api.start)
        return True

    def _broker_killed(self) -> bool:
        valkey = self.stack.servers.valkey
        if "broker" in self._down:
            return False
        _kill_tree(valkey.process.pid)
        until(lambda: not valkey.process.is_running())
        self._mark_down("broker", self.random.uniform(0, 4), valkey.start)
        return True

    def _messages_lost(self) -> bool:
        if "broker" in self._down:
            return False
        queue.celery().control.purge()
        return True

    def _messages_sent_too_often(self) -> bool:
        return "broker" not in self._down and queue.wake(times=20)

    # --- database ---

    def _database_restarted(self) -> bool:
        return self._stop_database(0)

    def _database_away(self) -> bool:
        return self._stop_database(self.random.uniform(2, 10))

    def _stop_database(self, seconds: float) -> bool:
        if "database" in self._down:
            return False
        self.stack.servers.postgres.stop()
        self._mark_down("database", seconds, self.stack.servers.postgres.start)
        return True

    def _database_killed(self) -> bool:
        postgres = self.stack.servers.postgres
        if "database" in self._down:
            return False
        _kill_tree(postgres.process.pid)
        until(lambda: not postgres.process.is_running())
        self._mark_down("database", self.random.uniform(0, 2), postgres.start)
        return True

    # --- files ---

    def _disk_full(self) -> bool:
        if self.disk is None or "disk" in self._down:
            return False
        self.disk.fill()
        self._mark_down("disk", self.random.uniform(1, 5), self.disk.free)
        return True

    def _checkpoint_damaged(self) -> bool:
        """Damage the newest checkpoint of an unfinished job."""
        if "database" in self._down:
            return False
        with database.transaction() as session:
            checkpoints = session.execute(
                select(Checkpoint.job_id, Checkpoint.file)
                .join(Job, Job.id == Checkpoint.job_id)
                .where(Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)))
                .order_by(Checkpoint.job_id, Checkpoint.step)
            ).all()
        newest = {row.job_id: row.file for row in checkpoints}
        if not newest:
            return False
        file = self._files / newest[self.random.choice(sorted(newest))]
        with suppress(OSError):  # it was replaced in the meantime
            self.random.choice((injection.truncate, injection.flip_a_bit))(file)
            child = self._child()
            if child is not None:  # so that the next attempt reads it
                os.kill(child[1], signal.SIGKILL)
            return True
        return False


@contextmanager
def suppress_outage(ledger: Ledger) -> Iterator[None]:
    """Ignore errors of an unreachable database; the ledger records that it could not look."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        ledger.skip_look()


def _kill_tree(pid: int) -> None:
    """Kill a process and wait for the end of its children, as a reboot does before a restart."""
    descendants = children(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(child) for child in descendants))
