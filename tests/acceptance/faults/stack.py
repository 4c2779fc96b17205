"""A whole installation for fault injection: servers, API and workers as processes, and a client that retries."""

from __future__ import annotations

import ctypes
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import httpx2

from service.operations.embedded.servers import Embedded
from tests.acceptance.lab import FAST, Api, RunningWorker, alive, children
from tests.forked import forkserver

SETTINGS = FAST | {
    "KOTRAIN_LEASE_SECONDS": "3",
    "KOTRAIN_CHECKPOINT_SECONDS": "0.3",
    "KOTRAIN_STALL_SECONDS": "6",
    "KOTRAIN_JOB_MEMORY_BYTES": str(2 * 2**30),
}
PATIENCE_SECONDS = 90
"""Limit of all waits, which allows for a busy machine."""

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class RetryingClient:
    """A client that repeats a request with the same idempotency key after a transport error or a 5xx response."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )
        self.repeats = 0

    def get(self, path: str) -> httpx2.Response:
        return self._send("GET", path)

    def post(self, path: str, json: Mapping[str, Any] | None = None, key: str | None = None) -> httpx2.Response:
        return self._send("POST", path, json=json, headers={"Idempotency-Key": key or str(uuid.uuid4())})

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(httpx2.TransportError):
                response = self._http.request(method, path, **content)
                is_processed = response.status_code == 409 and "still being processed" in response.text
                if response.status_code < 500 and not is_processed:
                    return response
            assert time.monotonic() < deadline, f"{method} {path} got no response"
            self.repeats += 1
            time.sleep(0.1)


class Descendants:
    """The descendants of this process: inside the block, those that lose their parent become its children."""

    def __enter__(self) -> Descendants:
        self._before = set(children(os.getpid()))
        self._adopt(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adopt(False)

    def orphans(self, roots: Iterable[int]) -> list[str]:
        """Command lines of the children that were adopted; `roots` are those that this process started."""
        started = {*roots, *self._before}
        return [f"{pid} {command_line(pid)}" for pid in children(os.getpid()) if pid not in started and alive(pid)]

    @staticmethod
    def reap(roots: Iterable[int]) -> None:
        """Wait for the adopted children that have ended; `roots` have other waiters."""
        started = set(roots)
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            for pid in map(int, file.read().split()):
                if pid not in started and not alive(pid):
                    with suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)

    @staticmethod
    def _adopt(on: bool) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def command_line(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return file.read().replace("\0", " ").strip()
    return "?"


class Stack:
    """`with Stack(servers, key) as stack`: the API runs inside the block; workers are started on demand.

    The settings of this process must point to the servers, whose database has its schema.
    """

    def __init__(self, servers: Embedded, key: str, settings: Mapping[str, str] = SETTINGS) -> None:
        self.servers, self.key, self._settings = servers, key, settings
        self._descendants = Descendants()
        self._started: list[RunningWorker] = []
        self._roots: set[int] = set()

    def __enter__(self) -> Stack:
        forkserver()
        self._descendants.__enter__()
        self.api = Api()
        self.client = RetryingClient(self.api.url, self.key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._started:
            worker.end()
        self.client.close()
        self.api.end()
        self._descendants.__exit__(kind, error, trace)

    # --- workers ---

    @property
    def workers(self) -> list[RunningWorker]:
        """The running workers, including those that are frozen or not ready yet."""
        return [worker for worker in self._started if worker.is_running]

    def start_worker(self, prefix: Sequence[str] = (), **settings: str) -> RunningWorker:
        """Start a worker, without waiting until it is ready."""
        worker = RunningWorker({**self._settings, **settings}, prefix)
        self._started.append(worker)
        self._roots.add(worker.pid)
        return worker

    def have_workers(self, number: int) -> list[RunningWorker]:
        """Return at least `number` ready workers; thaw those that the last test froze."""
        for _ in range(number - len(self.workers)):
            self.start_worker()
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        return [worker.ready() for worker in self.workers]

    def worker_of(self, job: Mapping[str, Any]) -> RunningWorker:
        """The worker that trains a job."""
        (owner,) = [worker for worker in self.workers if worker.is_ready and worker.id == job["worker"]]
        return owner

    def living(self) -> set[str]:
        """Ids of the workers that run and are not frozen."""
        return {worker.id for worker in self._started if worker.is_living and worker.is_ready}

    @contextmanager
    def frozen(self, workers: Iterable[RunningWorker]) -> Iterator[None]:
        """Freeze these workers inside the block."""
        frozen_workers = list(workers)
        for worker in frozen_workers:
            worker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in frozen_workers:
                worker.signal(signal.SIGCONT)

    # --- remaining processes ---

    def strays(self) -> list[str]:
        """Unexpected processes while no job runs: orphans, and training processes."""
        roots = self._roots | {self.api.process.pid}
        roots |= {server.process.pid or 0 for server in (self.servers.postgres, self.servers.valkey)}
        self._descendants.reap(roots)
        training = [f"{pid} trains below worker {worker.pid}" for worker in self.workers for pid in worker.training()]
        return self._descendants.orphans(roots) + training
