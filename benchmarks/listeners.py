"""Cost of 200 clients of one job's event stream for an API process, on the embedded servers.

A job changes its status and measures points, first without clients and then with CLIENTS open streams. Prints the
latency of `/healthz` (median and 99th percentile, milliseconds) in both cases and their ratio, the time from the commit
of a status change or a point to its arrival, and the CPU time of the process per second.

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
from service.config import settings
from service.jobs import claims, heartbeats, lookup, submission
from service.jobs.claims import Claim
from service.jobs.heartbeats import Batch, Beat
from service.jobs.requests import JobRequest
from service.operations import stack
from service.operations.embedded.servers import Embedded
from service.storage import database

CLIENTS = 200
SECONDS = 10.0
BEAT_SECONDS = 0.5
NAMES = [f"metric_{number}" for number in range(10)]
POINTS = 50
"""Points per metric and heartbeat."""


@contextmanager
def api() -> Iterator[tuple[str, psutil.Process]]:
    """Start an API process; yield its URL and the process."""
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
    """A simulated worker whose job adds points in each heartbeat and a note in every second one."""

    def __init__(self, claim: Claim) -> None:
        self.claim, self.step = claim, 0
        self.committed: list[tuple[float, int, int]] = []
        """Time of a commit, number of its last event, and its last step."""

    def beat(self) -> None:
        """Send a heartbeat."""
        steps = list(range(self.step + 1, self.step + POINTS + 1))
        self.step = steps[-1]
        points = {name: (steps, [0.5] * POINTS, [1.0] * POINTS) for name in NAMES}
        notes = [f"note {self.step}"] if self.step // POINTS % 2 else []
        with database.transaction() as session:
            heartbeats.beat(session, "w", [Beat(self.claim, self.step, None, [Batch(points, notes=notes)])])
            seq = lookup.get(session, self.claim.job_id).seq
        self.committed.append((time.monotonic(), seq, self.step))

    async def work(self, seconds: float) -> None:
        """Send heartbeats for this time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.to_thread(self.beat)
            await asyncio.sleep(BEAT_SECONDS)


class Client:
    """A client of the stream that reads bytes, which keeps the load of this process small."""

    def __init__(self) -> None:
        self.received: list[tuple[float, int, int]] = []
        """Time of arrival, number of the last event, and last step."""

    async def listen(self, url: str, key: str, job_id: UUID) -> None:
        """Read the stream until cancelled."""
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
        request = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(request.encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    seq, step, _ = line.removeprefix(b"id: ").split(b".", 2)
                    self.received.append((time.monotonic(), int(seq), int(step)))
        finally:
            writer.close()


async def ping(url: str, seconds: float) -> list[float]:
    """Latencies of consecutive requests of `/healthz`, in milliseconds."""
    latencies = []
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            latencies.append(1000 * (time.perf_counter() - start))
            await asyncio.sleep(0.02)
    return latencies


def percentiles(milliseconds: list[float]) -> str:
    """Median and 99th percentile as text."""
    ordered = sorted(milliseconds)
    return f"median {statistics.median(ordered):.1f} ms, 99th percentile {ordered[int(0.99 * len(ordered))]:.1f} ms"


async def measure(url: str, key: str, process: psutil.Process, worker: Worker) -> None:
    """Measure without clients and with them; print the results."""
    idle_latencies = (await asyncio.gather(ping(url, SECONDS), worker.work(SECONDS)))[0]
    print(f"/healthz, no client:   {percentiles(idle_latencies)}")
    clients = [Client() for _ in range(CLIENTS)]
    streams = [asyncio.create_task(client.listen(url, key, worker.claim.job_id)) for client in clients]
    start = time.monotonic()
    while not all(client.received and client.received[-1][2] == worker.step for client in clients):
        await asyncio.sleep(0.1)
    points = worker.step * len(NAMES)
    print(f"all clients have the history of {points:,} points after {time.monotonic() - start:.1f} s")
    worker.committed.clear()
    before = process.cpu_times()
    loaded_latencies = (await asyncio.gather(ping(url, SECONDS), worker.work(SECONDS)))[0]
    after = process.cpu_times()
    await asyncio.sleep(2)
    print(f"/healthz, {CLIENTS} clients: {percentiles(loaded_latencies)}")
    print(f"ratio of the medians: {statistics.median(loaded_latencies) / statistics.median(idle_latencies):.2f}")
    for kind, column in (("event", 1), ("point", 2)):
        delays = list(delays_of(clients, worker.committed, column))
        print(f"{kind}, from its commit to a client: {percentiles(delays)} (n = {len(delays)})")
    cpu = after.user + after.system - before.user - before.system
    print(f"CPU time of the process: {cpu / SECONDS:.2f} s per second")
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


def delays_of(clients: list[Client], committed: list[tuple[float, int, int]], column: int) -> Iterator[float]:
    """Milliseconds from each commit that advances a column to its arrival at each client."""
    latest = 0
    for commit in committed:
        if commit[column] > latest:
            latest = commit[column]
            for client in clients:
                arrival = next(received for received in client.received if received[column] >= latest)
                yield 1000 * (arrival[0] - commit[0])


def main() -> None:
    """Start the servers, measure and print."""
    with tempfile.TemporaryDirectory(prefix="kotrain-bench-") as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder, "home"), fast=True) as servers:
            os.environ["KOTRAIN_MAX_STREAMS_PER_USER"] = "1000"
            os.environ["KOTRAIN_DATABASE_URL"] = servers.database_url
            os.environ["KOTRAIN_BROKER_URL"] = servers.broker_url
            settings.cache_clear()
            database.migrate()
            key = api_keys.create("ada")
            request = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
            with database.transaction() as session:
                submission.submit(
                    session, api_keys.authenticated_user(session, f"Bearer {key}"), JobRequest.model_validate(request)
                )
            with database.transaction() as session:
                claim = claims.claim(session, "w", has_cuda=False)
            assert claim is not None
            with api() as (url, process):
                asyncio.run(measure(url, key, process, Worker(claim)))
            database.engine().dispose()


if __name__ == "__main__":
    main()
