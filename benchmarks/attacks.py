"""Claim: during each of these attacks, others' calls take at most 10 times as long and the API grows by at most 300 MB;
a process that listens in place of a stopped stack receives no key.

    python -m benchmarks.attacks

1. 2,100 connections that are idle, or hold back the end of their headers or of a body of 1 MB
2. 1,000 clients that request the largest file of the dashboard and read nothing
3. bodies of 1 MB with 170,000 errors each, from 4 clients of one member
4. 6 clients of one member that read all metrics of a job with a million points
5. after `kill -9` of `kotrain up`, a process at its address, and one at the default address

The attackers are another process on the same address as the measured calls; they open anew what is closed. Prints
Markdown: the 99th percentile of `GET /v1/me` and `GET /healthz`, each call on a connection of its own, against the
quiet values before each attack, over all repetitions, with the range of the repetitions' own; and the largest growth
of the API's memory (PSS).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import psutil

from benchmarks.listeners import api
from service.accounts import api_keys
from service.config import settings
from service.jobs import claims, submission
from service.jobs.requests import JobRequest
from service.metrics import write
from service.operations.embedded.servers import Embedded
from service.storage import database

REPETITIONS = 3
SECONDS = 20.0
GROWTH_MEGABYTES = 300
MAX_RATIO = 10.0
CALLS = ("/v1/me", "/healthz")
PAUSE_SECONDS = 0.02
MEGABYTE = 1_000_000
HELD_BACK = 1_000
"""Connections that send all of a body but its end."""
UNREAD_SECONDS = 10.0
JOB = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
DEFAULT_PORT = 8000


# --- attackers, in a process of their own -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Victim:
    """What an attacker knows."""

    host: str
    port: int
    key: str
    """A member's; not used by attacks 1 and 2."""
    job: str

    def head(self, line: str, *headers: str) -> bytes:
        """A request's head."""
        return "\r\n".join([f"{line} HTTP/1.1", f"Host: {self.host}", *headers, "", ""]).encode()

    def signed(self, line: str, *headers: str) -> bytes:
        """A request's head with the member's key."""
        return self.head(line, f"Authorization: Bearer {self.key}", *headers)


async def hold(victim: Victim, sent: bytes) -> None:
    """Send this and wait until the server closes the connection; a second later, again."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(victim.host, victim.port)
            try:
                writer.write(sent)
                while await reader.read(MEGABYTE):
                    pass
            finally:
                writer.transport.abort()
        await asyncio.sleep(1)


async def ignore(victim: Victim, sent: bytes) -> None:
    """Send this and read nothing of the response; after some seconds, again."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(victim.host, victim.port, limit=1)  # the kernel's buffer fills
            writer.write(sent)
            await asyncio.sleep(UNREAD_SECONDS * (0.5 + random.random()))
            writer.transport.abort()


async def repeat(victim: Victim, request: bytes) -> None:
    """Send a request and read the response, again and again."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(victim.host, victim.port)
            writer.write(request)
            while await reader.read(MEGABYTE):
                pass
            writer.close()
        await asyncio.sleep(0.01)


def connections(victim: Victim) -> Sequence[Awaitable[None]]:
    """Attack 1."""
    body = victim.head("POST /v1/jobs", f"Content-Length: {MEGABYTE}") + b" " * (MEGABYTE - 1)
    streamed = victim.signed("POST /v1/datasets?format=csv&name=x", f"Content-Length: {MEGABYTE}") + b"a"
    forms = [b"", b"GET /v1/me HTTP/1.1\r\nHost:", streamed]
    return [hold(victim, forms[n % 3]) for n in range(1_100)] + [hold(victim, body) for _ in range(HELD_BACK)]


def readers(victim: Victim) -> Sequence[Awaitable[None]]:
    """Attack 2."""
    return [ignore(victim, victim.head("GET /dashboard/plotly.js")) for _ in range(1_000)]


def bodies(victim: Victim) -> Sequence[Awaitable[None]]:
    """Attack 3."""
    job = JOB | {"model": {"name": "mlp", "params": {"hidden": [[0]] * 170_000}}}
    body = json.dumps(job).encode()
    head = victim.signed(
        "POST /v1/jobs", "Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}"
    )
    return [repeat(victim, head + body) for _ in range(4)]


def metrics(victim: Victim) -> Sequence[Awaitable[None]]:
    """Attack 4."""
    return [repeat(victim, victim.signed(f"GET /v1/jobs/{victim.job}/metrics", "Connection: close")) for _ in range(6)]


ATTACKS: dict[str, Callable[[Victim], Sequence[Awaitable[None]]]] = {
    "1. connections": connections,
    "2. readers that do not read": readers,
    "3. invalid bodies": bodies,
    "4. all metrics": metrics,
}


def attack(name: str, victim: Victim) -> None:
    """Run an attack until killed."""

    async def run() -> None:
        await asyncio.gather(*ATTACKS[name](victim))

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(run())


@contextmanager
def attacked(name: str, victim: Victim) -> Iterator[None]:
    """The attack, from its start to its end."""
    arguments = [name, victim.host, str(victim.port), victim.key, victim.job]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.attacks", "--attack", *arguments])
    try:
        time.sleep(2)
        yield
        assert process.poll() is None, f"the attack {name} ended"
    finally:
        process.kill()
        process.wait()


# --- what others see --------------------------------------------------------------------------------------------------


@dataclass
class Latencies:
    """Milliseconds of the calls of each repetition."""

    repetitions: list[list[float]] = field(default_factory=list)
    failed: int = 0

    def p99(self) -> float:
        """99th percentile over all repetitions."""
        return percentile([value for values in self.repetitions for value in values])

    def range(self) -> str:
        """Smallest and largest 99th percentile of a repetition."""
        each = [percentile(values) for values in self.repetitions]
        return f"{min(each):.0f} to {max(each):.0f}"


def percentile(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(0.99 * len(values))]


def call(url: str, key: str, seen: dict[str, Latencies]) -> None:
    """Measure calls for some seconds."""
    values: dict[str, list[float]] = {path: [] for path in CALLS}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for path in CALLS:
            start = time.perf_counter()
            try:
                headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
                httpx2.get(url + path, headers=headers, trust_env=False, timeout=30).raise_for_status()
            except httpx2.HTTPError:
                seen[path].failed += 1
            values[path].append(1000 * (time.perf_counter() - start))
            time.sleep(PAUSE_SECONDS)
    for path in CALLS:
        seen[path].repetitions.append(values[path])


class Memory(threading.Thread):
    """Watches the memory of a process while the block runs."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__()
        self._process, self._ended = process, threading.Event()
        self.before = self._now()
        self.largest = self.before

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Keep the largest value."""
        while not self._ended.wait(0.2):
            self.largest = max(self.largest, self._now())

    def _now(self) -> float:
        return float(self._process.memory_full_info().pss) / MEGABYTE

    @property
    def growth(self) -> float:
        """Megabytes."""
        return self.largest - self.before


def measure(url: str, process: psutil.Process, member: str, victim: Victim) -> bool:
    """Print the table of the attacks on a running API; whether all limits hold."""
    print(f"| attack | {' | '.join(f'`{path}` p99, quiet, ms | attacked | ratio' for path in CALLS)} | growth, MB |")
    print(f"|---|{'---|' * (3 * len(CALLS) + 1)}")
    holds = True
    call(url, member, {path: Latencies() for path in CALLS})
    for name in ATTACKS:
        quiet, loud = ({path: Latencies() for path in CALLS} for _ in range(2))
        growth = 0.0
        for _ in range(REPETITIONS):
            call(url, member, quiet)
            with Memory(process) as memory, attacked(name, victim):
                call(url, member, loud)
            growth = max(growth, memory.growth)
            time.sleep(3)
        cells = []
        for path in CALLS:
            ratio = loud[path].p99() / quiet[path].p99()
            holds &= ratio <= MAX_RATIO and not loud[path].failed
            failed = f", {loud[path].failed} failed" if loud[path].failed else ""
            cells.append(
                f"{quiet[path].p99():.0f} | {loud[path].p99():.0f} ({loud[path].range()}){failed} | {ratio:.1f}"
            )
        holds &= growth <= GROWTH_MEGABYTES
        print(f"| {name} | {' | '.join(cells)} | {growth:.0f} |", flush=True)
    return holds


# --- a process in place of the stack ----------------------------------------------------------------------------------


def received_keys(home: Path) -> list[str]:
    """What the command line sends to the addresses of a stack that was killed, of this and of the default port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    environment["KOTRAIN_HOME"] = str(home)
    kotrain = [sys.executable, "-m", "kotrain"]
    stack = subprocess.Popen([*kotrain, "up", "--port", "0"], env=environment, stdout=subprocess.DEVNULL)
    try:
        while not (home / "running.json").exists():
            assert stack.poll() is None, "kotrain up ended"
            time.sleep(0.1)
        port = urlsplit(json.loads((home / "running.json").read_text())["url"]).port
        assert port is not None
        subprocess.run([*kotrain, "jobs"], env=environment, check=True, stdout=subprocess.DEVNULL)
    finally:
        stack.send_signal(signal.SIGKILL)
        stack.wait()
    heard: list[str] = []
    with ExitStack() as listeners:
        for own in {port, DEFAULT_PORT}:
            listeners.enter_context(listening(own, heard))
        for url in (None, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{DEFAULT_PORT}"):
            named = environment if url is None else environment | {"KOTRAIN_URL": url}
            subprocess.run([*kotrain, "jobs"], env=named, check=False, capture_output=True)
    assert heard, "no tool called"
    return [request for request in heard if "authorization" in request.lower()]


def free(port: int) -> socket.socket:
    """A listening socket, once the killed stack's API has ended."""
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            time.sleep(0.1)


@contextmanager
def listening(port: int, heard: list[str]) -> Iterator[None]:
    """Another user's process that takes what is sent to a port, and answers nothing."""
    with free(port) as listener:

        def take() -> None:
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    with connection:
                        connection.settimeout(5)
                        heard.append(connection.recv(65_536).decode(errors="replace"))

        threading.Thread(target=take, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


# --- all of it --------------------------------------------------------------------------------------------------------


def filled_job(key: str) -> UUID:
    """A running job with a million points, which were stored as they were measured."""
    with database.transaction() as session:
        submission.submit(
            session, api_keys.authenticated_user(session, f"Bearer {key}"), JobRequest.model_validate(JOB)
        )
    with database.transaction() as session:
        claim = claims.claim(session, "w", has_cuda=False)
    assert claim is not None
    steps = list(range(1, 1_001))
    for start in range(0, 100_000, len(steps)):
        at = [start + step for step in steps]
        points = {f"metric_{number}": (at, [0.5] * len(at), [1.0] * len(at)) for number in range(10)}
        with database.transaction() as session:
            write.append(session, [(claim.job_id, points)])
    return claim.job_id


def main() -> int:
    """Start the servers, attack, and print."""
    holds = True
    with tempfile.TemporaryDirectory(prefix="kotrain-bench-") as folder:
        Path(folder).chmod(0o711)
        soft = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # what most systems start processes with
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with Embedded(Path(folder, "home"), fast=True) as servers:
            os.environ["KOTRAIN_DATABASE_URL"] = servers.database_url
            os.environ["KOTRAIN_BROKER_URL"] = servers.broker_url
            settings.cache_clear()
            database.migrate()
            member, attacker = api_keys.create("ada"), api_keys.create("mallory")
            job = filled_job(attacker)
            with api() as (url, process):
                parts = urlsplit(url)
                victim = Victim(str(parts.hostname), int(parts.port or 0), attacker, str(job))
                holds &= measure(url, process, member, victim)
            database.engine().dispose()
        keys = received_keys(Path(folder, "up"))
        holds &= not keys
        print(f"\n5. requests with a key at the addresses of a killed stack: {len(keys)}")
    print(f"\nlimits (ratio {MAX_RATIO:g}, growth {GROWTH_MEGABYTES} MB, no key, no failed call) hold: {holds}")
    return 0 if holds else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--attack", nargs=5)
    chosen = parser.parse_args().attack
    if chosen:
        attack(chosen[0], Victim(chosen[1], int(chosen[2]), chosen[3], chosen[4]))
    else:
        sys.exit(main())
