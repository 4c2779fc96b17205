"""Faults at random on a real stack that works: what they do, what undoes them, and jobs that go on all the while."""

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
from tests.acceptance.faults import harm
from tests.acceptance.faults.ledger import Ledger, Result
from tests.acceptance.faults.specs import SPECS, TOO_LARGE
from tests.acceptance.faults.stack import PATIENCE_SECONDS, Caller, Stack
from tests.acceptance.lab import RunningWorker, alive, children
from tests.waiting import until
from workers.heartbeat import is_away

WORKERS = 2
BACKLOG = 8
"""Jobs that are not at their end, at most, while new ones are submitted."""
LOOK_SECONDS = 0.05
DRAIN_SECONDS = 20.0


class Jobs:
    """Clients that submit, cancel and repeat themselves; each job is promised what an undisturbed run gave."""

    def __init__(self, url: str, key: str, ledger: Ledger, references: Mapping[str, Result], seed: int) -> None:
        self._caller = Caller(url, key)
        self._ledger, self._references = ledger, references
        self._random = random.Random(seed)
        self._clients = ThreadPoolExecutor(4)
        self._under_way: list[Future[None]] = []
        self.said: Counter[str] = Counter()

    def offer(self, most: int = BACKLOG) -> None:
        """Have a client submit a job, if there is not enough to do; which one, and what else it does, is random."""
        self._under_way = [each for each in self._under_way if not self._is_over(each)]
        if self._ledger.unfinished + len(self._under_way) < most:
            name = self._random.choice(list(self._references))
            submits_twice, cancels_after = self._random.random() < 0.2, None
            if self._random.random() < 0.1:
                cancels_after = self._random.uniform(0, 3)
            self._send(self._submit, name, submits_twice, cancels_after)

    def offer_too_large(self) -> None:
        """Have a client submit a job that does not fit in the memory it may have."""
        self._send(self._submit_too_large)

    def cancel(self, job_ids: Iterable[UUID]) -> None:
        """Have a client cancel these."""
        for job_id in job_ids:
            self._send(self._cancel, job_id)

    def close(self) -> None:
        """Wait for all that was asked."""
        for each in self._under_way:
            each.result(PATIENCE_SECONDS)
        self._clients.shutdown()
        self._caller.close()

    @property
    def repeats(self) -> int:
        """Requests that had to be sent again."""
        return self._caller.repeats

    def _send(self, call: Callable[..., None], *arguments: Any) -> None:
        self._under_way.append(self._clients.submit(call, *arguments))

    @staticmethod
    def _is_over(asked: Future[None]) -> bool:
        if asked.done():
            asked.result()  # raises what went wrong
        return asked.done()

    def _submit(self, name: str, submits_twice: bool, cancels_after: float | None) -> None:
        job_id = self._ask(SPECS[name], submits_twice)
        ends = {Reason.TARGET_REACHED if name == "stops at target" else Reason.COMPLETED}
        self._ledger.accept(
            job_id, self._references[name], ends if cancels_after is None else {*ends, Reason.CANCELLED}
        )
        if cancels_after is not None:
            time.sleep(cancels_after)  # a person who changes his mind
            self._cancel(job_id)

    def _submit_too_large(self) -> None:
        self._ledger.accept(self._ask(TOO_LARGE, False), None, [Reason.OUT_OF_MEMORY])

    def _ask(self, spec: Mapping[str, Any], twice: bool) -> UUID:
        key = f"soak-{threading.get_ident()}-{time.monotonic_ns()}"
        answers = [self._caller.post("/v1/jobs", json=spec, key=key) for _ in range(1 + twice)]
        assert {answer.status_code for answer in answers} == {202}, answers[0].text
        (job_id,) = {answer.json()["id"] for answer in answers}
        self.said["submitted twice"] += twice
        return UUID(job_id)

    def _cancel(self, job_id: UUID) -> None:
        entry = self._ledger.entries[job_id]
        self._ledger.accept(job_id, entry.reference, entry.ends | {Reason.CANCELLED})
        answer = self._caller.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code in (200, 202, 409), answer.text  # 409: it has ended already
        self.said["cancelled"] += answer.is_success


class Storm:
    """One fault after another, in an order that the seed decides; what undoes them follows by itself."""

    def __init__(self, stack: Stack, files: Path, seed: int) -> None:
        self.stack, self._files = stack, files
        self.random = random.Random(seed)
        self._cures: list[tuple[float, int, Callable[[], None]]] = []
        self._deck: list[str] = []
        self._draining: set[RunningWorker] = set()
        self._away: set[str] = set()
        """Parts that are away or frozen just now."""
        self.ledger = Ledger()
        self.injected: Counter[str] = Counter()
        self.stubborn: list[str] = []
        """The last words of workers that did not stop in time when they were told to."""
        self.disk: harm.SmallDisk | None = None
        self.jobs: Jobs

    FAULTS: Mapping[str, int] = {  # how many of each there are in the deck
        "training process killed": 3,
        "training process hung": 1,
        "cancel ignored": 1,
        "worker killed": 2,
        "worker drained": 2,
        "worker frozen": 2,
        "API killed": 2,
        "broker killed": 2,
        "bells lost": 1,
        "bells rung too often": 1,
        "database restarted": 1,
        "database away": 1,
        "database killed": 1,
        "disk full": 2,
        "checkpoint damaged": 3,
        "memory eaten": 1,
    }

    # --- the run of it ---

    def inject(self) -> str | None:
        """The next fault of the deck that can happen now; its name, or None where none can."""
        if len(self._deck) < len(self.FAULTS):  # what cannot happen just now stays in it
            more = [name for name, number in self.FAULTS.items() for _ in range(number - 1)]
            self._deck += self._shuffled(self.FAULTS) + self._shuffled(more)  # each once before any comes twice
        for index, name in enumerate(self._deck):
            if getattr(self, "_" + name.lower().replace(" ", "_"))():
                del self._deck[index]
                self.injected[name] += 1
                return name
        return None

    def go_on(self) -> None:
        """Undo what is due, and have as many workers as there were."""
        while self._cures and self._cures[0][0] <= time.monotonic():
            heapq.heappop(self._cures)[2]()
        for _ in range(WORKERS - len(self.stack.workers)):
            self.stack.start_worker()
        with suppress_away(self.ledger), database.transaction() as session:
            self.ledger.look(session, self.stack.living())

    def calm(self) -> None:
        """Wait until everything is undone, in its time."""
        while self._cures:
            self.go_on()
            time.sleep(LOOK_SECONDS)
        self.go_on()

    def _shuffled(self, names: Iterable[str]) -> list[str]:
        chosen = list(names)
        self.random.shuffle(chosen)
        return chosen

    def _later(self, seconds: float, cure: Callable[[], None]) -> None:
        heapq.heappush(self._cures, (time.monotonic() + seconds, sum(self.injected.values()), cure))

    # --- choices ---

    def _ready_workers(self) -> list[RunningWorker]:
        return [worker for worker in self.stack.workers if worker.is_living and worker.is_ready]

    def _worker(self) -> RunningWorker | None:
        """Any that listens; the last one is not taken away before another one is ready."""
        ready = [worker for worker in self._ready_workers() if worker not in self._draining]
        return self.random.choice(ready) if len(ready) >= WORKERS else None

    def _child(self) -> tuple[RunningWorker, int] | None:
        """Any process that trains."""
        found = [(worker, pid) for worker in self._ready_workers() for pid in worker.training()]
        return self.random.choice(found) if found else None

    def _running_on(self, worker: RunningWorker) -> list[UUID]:
        wanted = select(Job.id).where(Job.worker_id == worker.id, Job.status == JobStatus.RUNNING)
        with database.transaction() as session:
            return list(session.scalars(wanted))

    # --- training processes ---

    def _training_process_killed(self) -> bool:
        chosen = self._child()
        if chosen is not None:
            with suppress(ProcessLookupError):
                os.kill(chosen[1], signal.SIGKILL)
        return chosen is not None

    def _training_process_hung(self) -> bool:
        chosen = self._child()
        with suppress(OSError):  # it ended meanwhile
            if chosen is not None:
                harm.hang(chosen[1])
                return True
        return False

    def _cancel_ignored(self) -> bool:
        chosen = self._child()
        if chosen is None or "database" in self._away:
            return False
        worker, child = chosen
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
        # Whose process it is cannot be seen from outside; those of the worker's jobs that listen end at once.
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
        """As whoever runs it would: with the database away and other faults at once it may need longer to stop."""
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
        if "api" in self._away:
            return False
        self.stack.api.kill()
        self._away.add("api")
        self._later(self.random.uniform(0, 2), self._start_api)
        return True

    def _start_api(self) -> None:
        self.stack.api.start()
        self._away.discard("api")

    def _broker_killed(self) -> bool:
        valkey = self.stack.servers.valkey
        if "broker" in self._away:
            return False
        _kill_with_all_below(valkey.process.pid)
        until(lambda: not valkey.process.is_running())
        self._away.add("broker")
        self._later(self.random.uniform(0, 4), self._start_broker)
        return True

    def _start_broker(self) -> None:
        self.stack.servers.valkey.start()
        self._away.discard("broker")

    def _bells_lost(self) -> bool:
        if "broker" in self._away:
            return False
        queue.celery().control.purge()
        return True

    def _bells_rung_too_often(self) -> bool:
        return "broker" not in self._away and queue.ring(times=20)

    # --- database ---

    def _database_restarted(self) -> bool:
        return self._stop_database(0)

    def _database_away(self) -> bool:
        return self._stop_database(self.random.uniform(2, 10))

    def _stop_database(self, seconds: float) -> bool:
        if "database" in self._away:
            return False
        self.stack.servers.postgres.stop()
        self._away.add("database")
        self._later(seconds, self._start_database)
        return True

    def _database_killed(self) -> bool:
        postgres = self.stack.servers.postgres
        if "database" in self._away:
            return False
        _kill_with_all_below(postgres.process.pid)
        until(lambda: not postgres.process.is_running())
        self._away.add("database")
        self._later(self.random.uniform(0, 2), self._start_database)
        return True

    def _start_database(self) -> None:
        self.stack.servers.postgres.start()
        self._away.discard("database")

    # --- files ---

    def _disk_full(self) -> bool:
        disk = self.disk
        if disk is None or "disk" in self._away:
            return False
        disk.fill()
        self._away.add("disk")

        def free() -> None:
            disk.free()
            self._away.discard("disk")

        self._later(self.random.uniform(1, 5), free)
        return True

    def _checkpoint_damaged(self) -> bool:
        """The newest one of a job that is not at its end."""
        if "database" in self._away:
            return False
        with database.transaction() as session:
            files = session.execute(
                select(Checkpoint.job_id, Checkpoint.file)
                .join(Job, Job.id == Checkpoint.job_id)
                .where(Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)))
                .order_by(Checkpoint.job_id, Checkpoint.step)
            ).all()
        newest = {row.job_id: row.file for row in files}
        if not newest:
            return False
        file = self._files / newest[self.random.choice(sorted(newest))]
        with suppress(OSError):  # it was replaced meanwhile
            self.random.choice((harm.truncate, harm.flip_a_bit))(file)
            child = self._child()
            if child is not None:  # somebody has to read it
                os.kill(child[1], signal.SIGKILL)
            return True
        return False


@contextmanager
def suppress_away(ledger: Ledger) -> Iterator[None]:
    """A database that is away is no error here; the ledger is told that nobody looked."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        ledger.looked_away()


def _kill_with_all_below(pid: int) -> None:
    """As a reboot does: what it has started is gone as well before anybody starts it again."""
    below = children(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(each) for each in below))
