"""A worker process, an API process, and a client of the API that submits jobs and waits for them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from service.storage import database
from service.storage.tables import JobEvent
from tests.forked import Forked
from tests.waiting import until

JOB = {
    "dataset": {"name": "digits", "params": {"split": "golden"}},
    "model": {"name": "mlp", "params": {"hidden": [32]}},
    "optimizer": "adam",
    "budget": {"epochs": 2},
}
LONG = JOB | {"budget": {"steps": 10_000_000}}
FAST = {
    "KOTRAIN_SLOTS": "2",
    "KOTRAIN_LEASE_SECONDS": "2",
    "KOTRAIN_BEAT_SECONDS": "0.2",
    "KOTRAIN_MAINTENANCE_SECONDS": "1",
    "KOTRAIN_BACKOFF_SECONDS": "0.1",
    "KOTRAIN_CANCEL_SECONDS": "1",
    "KOTRAIN_JOB_MEMORY_BYTES": str(4 * 2**30),
}


class RunningWorker:
    """A worker process and its children; it takes jobs once `ready()` has returned.

    Args:
        settings: environment variables in addition to this process's.
        prefix: a program and its arguments that run the worker.
        forked: fork it from a process that has imported its modules (`tests.forked`); a prefix runs a new interpreter.
    """

    def __init__(self, settings: Mapping[str, str] = FAST, prefix: Sequence[str] = (), forked: bool = True) -> None:
        # Not a pipe: an unread pipe stops the worker once it is full.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (until `end`)
        options: dict[str, Any] = {"env": os.environ | settings, "stdout": self._log, "stderr": self._log}
        command = [*prefix, sys.executable, "-P", "-m", "workers"]
        self.process = Forked("workers", **options) if forked and not prefix else subprocess.Popen(command, **options)

    def ready(self) -> RunningWorker:
        """Wait until the worker takes jobs."""
        until(lambda: self.is_ready or not self.is_running, 120)
        assert self.is_ready, self.log()
        return self

    @property
    def is_ready(self) -> bool:
        return " ready." in self.log()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def is_living(self) -> bool:
        """Whether the worker runs and is not frozen by a signal."""
        return self.is_running and state(self.pid) not in ("T", "t", "Z", None)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def id(self) -> str:
        """The worker's id in the tables."""
        match = re.search(r"kotrain@(\S+) ready\.", self.log())
        assert match is not None, "it is not ready"
        return match[1]

    def training(self) -> list[int]:
        """Process ids of the training processes, one for each job."""
        return [pid for server in children(self.pid) for pid in children(server)]

    def child(self) -> int:
        """The only training process. A worker that has just started also has a child that checks the engine."""
        until(lambda: len(self.training()) == 1)
        return self.training()[0]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def log(self) -> str:
        """The worker's output so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def end(self) -> None:
        """Stop the worker; kill it if it does not stop within 20 s."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def state(pid: int) -> str | None:
    """Return the kernel's letter for a process's state (`T`: stopped, `Z`: dead); None if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return None


def children(parent: int) -> list[int]:
    """Process ids of the live children."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                pids.append(int(stat.parent.name))
    return pids


def alive(pid: int) -> bool:
    return state(pid) not in ("Z", None)


@contextmanager
def running_worker(settings: Mapping[str, str] = FAST, forked: bool = True) -> Iterator[RunningWorker]:
    worker = RunningWorker(settings, forked=forked)
    try:
        yield worker.ready()
    finally:
        worker.end()


class Api:
    """The API as a process, on the same port after each restart; it responds once `ready()` has returned.

    Args:
        settings: environment variables in addition to this process's.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings or {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (until `end`)
        self.start()

    def start(self) -> None:
        """Start the process, without waiting until it responds."""
        self.process = Forked(
            *("service.commands", "api", "--port", str(self.port)),
            env=os.environ | self._settings,
            stdout=self._log,
            stderr=self._log,
        )

    def ready(self) -> Api:
        """Wait until it responds."""

        def responds() -> bool:
            assert self.process.poll() is None, self.log()
            with suppress(httpx2.TransportError):
                return httpx2.get(f"{self.url}/healthz", trust_env=False).is_success
            return False

        until(responds, 90)
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop the process; kill it if it does not stop within 20 s."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()
        self._log.close()

    def log(self) -> str:
        """The output of all its processes so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")


class Lab:
    """Submits jobs over the API and waits for them."""

    def __init__(self, api) -> None:
        self.api = api

    def submit(self, job=JOB, **fields) -> str:
        response = self.api.post("/v1/jobs", json=job | fields)
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def show(self, job_id: str) -> dict:
        return self.api.get(f"/v1/jobs/{job_id}").json()

    def metrics(self, job_id: str) -> dict:
        return self.api.get(f"/v1/jobs/{job_id}/metrics").json()["metrics"]

    def ended(self, job_id: str) -> dict:
        """Wait until the job has ended, and return it."""
        # Not 60 s: several stacks may share two cores.
        until(lambda: self.show(job_id)["status"] in ("succeeded", "failed", "cancelled"), 240)
        return self.show(job_id)

    def wait_until_training(self, job_id: str) -> None:
        """Wait until the job has trained for some steps."""
        until(lambda: self.show(job_id)["progress"]["step"] > 0)

    def events(self, job_id: str) -> list[tuple[str, str | None]]:
        with database.transaction() as session:
            rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq))
            return [(row.status, row.reason) for row in rows]
