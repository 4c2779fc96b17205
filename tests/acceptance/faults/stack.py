"""A whole installation to hurt: real servers, the API and workers, each a process of its own, and a patient client."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import httpx2

from service.operations.embedded.servers import Embedded
from tests.acceptance.lab import FAST, RunningWorker, alive, children
from tests.forked import Forked, forkserver
from tests.waiting import until

SETTINGS = FAST | {
    "KOTRAIN_LEASE_SECONDS": "3",
    "KOTRAIN_CHECKPOINT_SECONDS": "0.5",
    "KOTRAIN_STALL_SECONDS": "6",
    "KOTRAIN_JOB_MEMORY_BYTES": str(2 * 2**30),
}
PATIENCE_SECONDS = 90
"""What anything may take on a machine that is busy with something else."""

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Api:
    """The API as a process, on a port that stays the same when it is started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (until `end`)
        self.start()

    def start(self) -> None:
        self.process = Forked(
            *("service.commands", "api", "--port", str(self.port)),
            stdout=self._log,
            stderr=self._log,
        )

    def ready(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log()
            with suppress(httpx2.TransportError):
                return httpx2.get(f"{self.url}/healthz", trust_env=False).is_success
            return False

        until(answers, PATIENCE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()
        self._log.close()

    def log(self) -> str:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")


class Caller:
    """A client as a careful one is: what fails on the way, or meets a 503, is sent again with the same key."""

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
                under_way = response.status_code == 409 and "still being processed" in response.text
                if response.status_code < 500 and not under_way:
                    return response
            assert time.monotonic() < deadline, f"{method} {path} was not answered"
            self.repeats += 1
            time.sleep(0.1)


class Kin:
    """Every process that descends from us: inside the block, whoever loses its parent becomes our own child."""

    def __enter__(self) -> Kin:
        self._before = set(children(os.getpid()))
        self._adopt(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adopt(False)

    def orphans(self, roots: Iterable[int]) -> list[str]:
        """The children that we did not start, as command lines; `roots` are those that we did."""
        ours = {*roots, *self._before}
        return [f"{pid} {command_line(pid)}" for pid in children(os.getpid()) if pid not in ours and alive(pid)]

    @staticmethod
    def bury(roots: Iterable[int]) -> None:
        """Wait for adopted children that have ended, and leave those that somebody else waits for."""
        ours = set(roots)
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            for pid in map(int, file.read().split()):
                if pid not in ours and not alive(pid):
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
    """`with Stack(servers, key) as stack`: the API answers inside the block; workers are started as they are wanted.

    The settings of this process point to the servers, whose schema is there.
    """

    def __init__(self, servers: Embedded, key: str, settings: Mapping[str, str] = SETTINGS) -> None:
        self.servers, self.key, self._settings = servers, key, settings
        self._kin = Kin()
        self._started: list[RunningWorker] = []
        self._roots: set[int] = set()

    def __enter__(self) -> Stack:
        forkserver()
        self._kin.__enter__()
        self.api = Api()
        self.caller = Caller(self.api.url, self.key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._started:
            worker.end()
        self.caller.close()
        self.api.end()
        self._kin.__exit__(kind, error, trace)

    # --- workers ---

    @property
    def workers(self) -> list[RunningWorker]:
        """Those that run, also those that are stopped for a while or not ready yet."""
        return [worker for worker in self._started if worker.is_running]

    def start_worker(self, prefix: Sequence[str] = (), **settings: str) -> RunningWorker:
        """Start one; it is not ready yet."""
        worker = RunningWorker({**self._settings, **settings}, prefix)
        self._started.append(worker)
        self._roots.add(worker.pid)
        return worker

    def have_workers(self, number: int) -> list[RunningWorker]:
        """At least so many, ready and with what the last test did to them undone."""
        for _ in range(number - len(self.workers)):
            self.start_worker()
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        return [worker.ready() for worker in self.workers]

    def worker_of(self, job: Mapping[str, Any]) -> RunningWorker:
        """Who trains a job."""
        (owner,) = [worker for worker in self.workers if worker.is_ready and worker.id == job["worker"]]
        return owner

    def living(self) -> set[str]:
        """The names of the workers that run and are not stopped."""
        return {worker.id for worker in self._started if worker.is_living and worker.is_ready}

    @contextmanager
    def frozen(self, workers: Iterable[RunningWorker]) -> Iterator[None]:
        """These do nothing inside the block."""
        chosen = list(workers)
        for worker in chosen:
            worker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in chosen:
                worker.signal(signal.SIGCONT)

    # --- what is left of them ---

    def strays(self) -> list[str]:
        """Processes that nothing accounts for while no job runs: orphans, and training below a worker."""
        roots = self._roots | {self.api.process.pid}
        roots |= {server.process.pid or 0 for server in (self.servers.postgres, self.servers.valkey)}
        self._kin.bury(roots)
        training = [f"{pid} trains below worker {worker.pid}" for worker in self.workers for pid in worker.training()]
        return self._kin.orphans(roots) + training
