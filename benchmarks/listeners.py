"""What 200 listeners of one job cost an API process, on the embedded servers.

A job changes its status and measures points while nobody listens, and while LISTENERS streams are open. Prints how long
`/healthz` takes (median and 99th percentile, milliseconds) in both cases and their ratio; how long after its commit a
change of status and a point arrive; and the process's CPU time a second.

    python -m benchmarks.listeners
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx2
import psutil

from service.accounts import api_keys
from service.jobs import claims, heartbeats, lookup, submission
from service.jobs.claims import Claim
from service.jobs.heartbeats import Batch, Beat
from service.jobs.requests import JobRequest
from service.operations import stack
from service.operations.embedded.servers import Embedded
from service.storage import database

LISTENERS = 200
SECONDS = 10.0
BEAT_SECONDS = 0.5
NAMES = [f"metric_{number}" for number in range(10)]
POINTS = 50
"""Of each metric in one beat."""


@contextmanager
def api() -> Iterator[tuple[str, psutil.Process]]:
    """An API process, and its address."""
    with stack.listen("127.0.0.1", 0) as listener:
        descriptor = listener.fileno()
        line = [sys.executable, "-P", "-m", "service.commands", "api", "--fd", str(descriptor)]
        process = subprocess.Popen(line, pass_fds=(descriptor,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            httpx2.get(f"{url}/healthz", trust_env=False, timeout=30)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


class Worker:
    """Plays a worker whose job measures in each beat, and notes something in each second one."""

    def __init__(self, claim: Claim) -> None:
        self.claim, self.step = claim, 0
        self.committed: list[tuple[float, int, int]] = []
        """When the events up to a number, and the points up to a step, could be seen."""

    def beat(self) -> None:
        """One sign of life."""
        steps = list(range(self.step + 1, self.step + POINTS + 1))
        self.step = steps[-1]
        points = {name: (steps, [0.5] * POINTS, [1.0] * POINTS) for name in NAMES}
        notes = [f"note {self.step}"] if self.step // POINTS % 2 else []
        with database.transaction() as session:
            heartbeats.beat(session, "w", [Beat(self.claim, self.step, None, [Batch(points, notes=notes)])])
            seq = lookup.get(session, self.claim.job_id).seq
        self.committed.append((time.monotonic(), seq, self.step))

    async def work(self, seconds: float) -> None:
        """Beat for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.to_thread(self.beat)
            await asyncio.sleep(BEAT_SECONDS)


class Listener:
    """One stream, read as bytes, so that this process does not become what is measured."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int, int]] = []
        """When, and up to which event and step."""

    async def listen(self, url: str, key: str, job_id: UUID) -> None:
        """Until cancelled."""
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
        request = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(request.encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    seq, step, _ = line.removeprefix(b"id: ").split(b".", 2)
                    self.heard.append((time.monotonic(), int(seq), int(step)))
        finally:
            writer.close()


async def ping(url: str, seconds: float) -> list[float]:
    """How long calls of `/healthz` take, in milliseconds, one after the other."""
    took = []
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            took.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(0.02)
    return took


def told(took: list[float]) -> str:
    """Milliseconds in a few words."""
    ordered = sorted(took)
    return f"median {statistics.median(ordered):.1f} ms, 99th percentile {ordered[int(0.99 * len(ordered))]:.1f} ms"


async def measure(url: str, key: str, process: psutil.Process, worker: Worker) -> None:
    """Without listeners and with them."""
    quiet = (await asyncio.gather(ping(url, SECONDS), worker.work(SECONDS)))[0]
    print(f"/healthz, nobody listens: {told(quiet)}")
    listeners = [Listener() for _ in range(LISTENERS)]
    open_ones = [asyncio.create_task(one.listen(url, key, worker.claim.job_id)) for one in listeners]
    began = time.monotonic()
    while not all(one.heard and one.heard[-1][2] == worker.step for one in listeners):
        await asyncio.sleep(0.1)
    points = worker.step * len(NAMES)
    print(f"all have the history of {points:,} points after {time.monotonic() - began:.1f} s")
    worker.committed.clear()
    before = process.cpu_times()
    busy = (await asyncio.gather(ping(url, SECONDS), worker.work(SECONDS)))[0]
    after = process.cpu_times()
    await asyncio.sleep(2)
    print(f"/healthz, {LISTENERS} listen:   {told(busy)}")
    print(f"ratio of the medians: {statistics.median(busy) / statistics.median(quiet):.2f}")
    for kind, column in (("an event", 1), ("a point", 2)):
        delays = list(delays_of(listeners, worker.committed, column))
        print(f"{kind}, from its commit to a listener: {told(delays)} (n = {len(delays)})")
    cpu = after.user + after.system - before.user - before.system
    print(f"CPU of the process: {cpu / SECONDS:.2f} s a second")
    for task in open_ones:
        task.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)


def delays_of(listeners: list[Listener], committed: list[tuple[float, int, int]], column: int) -> Iterator[float]:
    """Milliseconds until each listener has heard what is new of a column."""
    known = 0
    for commit in committed:
        if commit[column] > known:
            known = commit[column]
            for listener in listeners:
                yield 1000 * (next(heard for heard in listener.heard if heard[column] >= known)[0] - commit[0])


def main() -> None:
    """Start the servers, measure, print."""
    with tempfile.TemporaryDirectory(prefix="kotrain-bench-") as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder, "home"), fast=True) as servers:
            os.environ["KOTRAIN_DATABASE_URL"] = servers.database_url
            os.environ["KOTRAIN_BROKER_URL"] = servers.broker_url
            database.migrate()
            key = api_keys.create("ada")
            request = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
            with database.transaction() as session:
                submission.submit(session, api_keys.owner(session, f"Bearer {key}"), JobRequest.model_validate(request))
            with database.transaction() as session:
                claim = claims.claim(session, "w", has_cuda=False)
            assert claim is not None
            with api() as (url, process):
                asyncio.run(measure(url, key, process, Worker(claim)))
            database.engine().dispose()


if __name__ == "__main__":
    main()
