"""Claim: `kotrain gc` removes ten million metric points in seconds, with little memory and effect on the service.

A database on the embedded server, durable as in production: one run of 6.5 million points (deleting such a run took
MLflow 21.8 GiB: mlflow/mlflow#25615), 200 runs with 13 merged curves, 20 lost runs that left 2.5 million points in
small chunks, and recent runs that stay. `kotrain gc` runs beside the statements of a worker (claim, heartbeat with 13
points, read of 13 curves), whose latencies are measured before and meanwhile. Three rounds on one database show whether
disk space is reused. Prints tables.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import psutil
from sqlalchemy import text

from service.accounts import api_keys
from service.jobs import claims, heartbeats, outcomes, submission
from service.jobs.heartbeats import Batch, Beat
from service.jobs.requests import JobRequest
from service.metrics import read, write
from service.operations.embedded.servers import Embedded
from service.storage import database
from service.storage.tables import User

REQUEST = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
NAMES = [f"metric_{number}" for number in range(13)]
POINTS_OF_LARGE = 500_000  # per metric of the large run: 6.5 million in total
MERGED_RUNS, POINTS_OF_MERGED = 200, 385  # 1.0 million
LOST_RUNS, CHUNKS_OF_LOST, POINTS_OF_CHUNK = 20, 740, 13  # 2.5 million; a chunk per heartbeat and metric
RECENT_RUNS = 100
QUIET_SECONDS = 8.0
PERIOD_SECONDS = 0.02
ROUNDS = 3

Times = dict[str, list[float]]


# --- the database ----------------------------------------------------------------------------------------------------


def fill() -> int:
    """Store the runs; return the number of points that `gc` has to remove."""
    rng = np.random.default_rng(0)
    removed = 0
    for points, size, count, is_old in (
        (POINTS_OF_LARGE, write.MERGED_POINTS, 1, True),
        (POINTS_OF_MERGED, write.MERGED_POINTS, MERGED_RUNS, True),
        (CHUNKS_OF_LOST * POINTS_OF_CHUNK, POINTS_OF_CHUNK, LOST_RUNS, True),
        (POINTS_OF_MERGED, write.MERGED_POINTS, RECENT_RUNS, False),
    ):
        for job_id in ended(count, days_ago=100 if is_old else 1):
            with database.transaction() as session:
                write.append(session, ((job_id, chunk) for chunk in chunks(rng, points, size)))
            removed += points * len(NAMES) * is_old
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    return removed


def chunks(rng: np.random.Generator, points: int, size: int) -> Iterator[write.Points]:
    """Noisy falling curves under all names, in chunks of `size` points."""
    for start in range(1, points + 1, size):
        steps = np.arange(start, min(start + size, points + 1))
        values = {name: (1 / np.sqrt(steps) + rng.normal(0, 0.01, len(steps))).tolist() for name in NAMES}
        steps, seconds = steps.tolist(), (0.0137 * steps).tolist()
        yield {name: (steps, values[name], seconds) for name in NAMES}


def ended(count: int, days_ago: int) -> list[UUID]:
    """Store jobs that ended this number of days ago."""
    job_ids = submit(count)
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE jobs SET status = 'succeeded', reason = 'completed', attempt = 1, "
                "finished_at = clock_timestamp() - make_interval(days => :days) WHERE id = ANY(:ids)"
            ),
            {"days": days_ago, "ids": job_ids},
        )
    return job_ids


def submit(count: int) -> list[UUID]:
    """Submit jobs; return their ids."""
    with database.transaction() as session:
        user = session.query(User).one()
        return submission.submit_many(session, user, [JobRequest.model_validate(REQUEST)] * count, is_direct=True)


# --- the load --------------------------------------------------------------------------------------------------------


class Load:
    """The statements of a worker and a reader on the database, every 20 ms."""

    def __init__(self, recent: UUID) -> None:
        self.recent = recent
        with database.transaction() as session:
            self.running = claims.claim(session, "busy", has_cuda=False)
        self.step = 0

    def run(self, is_over: Callable[[], bool]) -> Times:
        """Repeat the statements until `is_over()`; return their latencies in milliseconds."""
        times: Times = defaultdict(list)
        while not is_over():
            start = time.perf_counter()
            for name, statement in (("claim", self.claim), ("beat", self.beat), ("read", self.read)):
                since = time.perf_counter()
                statement()
                times[name].append(1000 * (time.perf_counter() - since))
            time.sleep(max(0.0, PERIOD_SECONDS - (time.perf_counter() - start)))
        return times

    def claim(self) -> None:
        """Claim a job and requeue it."""
        with database.transaction() as session:
            claim = claims.claim(session, "w", has_cuda=False)
        with database.transaction() as session:
            outcomes.requeue(session, claim, "benchmark")

    def beat(self) -> None:
        """Send a heartbeat with a point per metric."""
        self.step += 1
        batch = Batch({name: ([self.step], [0.5], [0.1]) for name in NAMES})
        with database.transaction() as session:
            heartbeats.beat(session, "busy", [Beat(self.running, self.step, None, [batch])])

    def read(self) -> None:
        """Read the curves of a recent run."""
        with database.transaction() as session:
            assert read.curves(session, [self.recent])


def for_seconds(seconds: float) -> Callable[[], bool]:
    """A function that returns whether this time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


class Collection:
    """A process that runs `kotrain gc`, and the peak memory of it and of the server's processes.

    It waits for `start`, so that its imports are not measured.
    """

    def __init__(self, server: psutil.Process) -> None:
        self.server = server
        program = "from service.commands import app; input(); app(['gc', '--points-days', '30', '--json'])"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)
        self.peak_kb = self.server_kb = 0
        self.removed: dict[str, float] = {}

    def start(self) -> None:
        """Start the collection."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def is_over(self) -> bool:
        """Whether the process has ended; record its memory."""
        self.peak_kb = max(self.peak_kb, status_kb(self.process.pid, "VmHWM"))
        for backend in self.server.children():
            self.server_kb = max(self.server_kb, status_kb(backend.pid, "RssAnon"))
        return self.process.poll() is not None


def status_kb(pid: int, field: str) -> int:
    """A size in /proc/PID/status; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


# --- the measurement -------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder, "home")) as embedded:
            os.environ |= {
                "KOTRAIN_DATABASE_URL": embedded.database_url,
                "KOTRAIN_BROKER_URL": embedded.broker_url,
                "KOTRAIN_HOME": f"{folder}/home",
            }
            database.migrate()
            measure(psutil.Process(embedded.postgres.process.pid), Path(folder, "home", "postgres", "data"))


def measure(server: psutil.Process, data: Path) -> None:
    """Fill the database and collect, for several rounds; print the results."""
    api_keys.create("ada")
    (recent,) = ended(1, days_ago=0)
    with database.transaction() as session:
        write.append(session, ((recent, chunk) for chunk in chunks(np.random.default_rng(1), 385, 385)))
    submit(50)
    load = Load(recent)
    times: dict[str, Times] = {"alone": defaultdict(list), "gc": defaultdict(list)}
    collections, sizes = [], []
    for number in range(1, ROUNDS + 1):
        start = time.perf_counter()
        expected = fill()
        print(f"round {number}: filled in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        collection = Collection(server)
        load.run(for_seconds(5))  # warm up, while the collection imports its modules
        sizes.append((f"{number}: filled", table_bytes(), folder_bytes(data)))
        extend(times["alone"], load.run(for_seconds(QUIET_SECONDS)))
        wal = position()
        collection.start()
        extend(times["gc"], load.run(collection.is_over))
        collection.removed = json.loads(collection.process.communicate()[0]) | {"wal": position() - wal}
        assert collection.removed["points"] == expected, collection.removed
        collections.append(collection)
        vacuum_seconds = vacuum()
        sizes.append((f"{number}: after gc and {vacuum_seconds:.1f} s of vacuum", table_bytes(), folder_bytes(data)))
    print_collections(collections)
    print_times(times)
    print("\n| disk, by round | metric_chunks, MB | data folder with its log, MB |\n|---|---|---|")
    for name, table, whole in sizes:
        print(f"| {name} | {table / 1e6:.0f} | {whole / 1e6:.0f} |")


def extend(total: Times, times: Times) -> None:
    """Add the times of a round to the total."""
    for name, values in times.items():
        total[name] += values


def print_collections(collections: list[Collection]) -> None:
    """Print the results of the collections as medians with ranges over the rounds."""

    def summary(value: Callable[[Collection], float], unit: str) -> str:
        values = sorted(value(collection) for collection in collections)
        return f"{values[len(values) // 2]:,.3g} {unit} ({values[0]:,.3g} to {values[-1]:,.3g})"

    first = collections[0].removed
    print(f"| {len(collections)} rounds | median (range) |\n|---|---|")
    print(f"| points removed | {first['points']:,} in {first['point_rows']:,} rows |")
    print(f"| time | {summary(lambda c: c.removed['seconds'], 's')} |")
    print(f"| speed | {summary(lambda c: c.removed['points'] / c.removed['seconds'] / 1e6, 'million points/s')} |")
    print(f"| peak memory of gc | {summary(lambda c: c.peak_kb / 1024, 'MiB')} |")
    print(f"| largest private memory of a server process | {summary(lambda c: c.server_kb / 1024, 'MiB')} |")
    print(f"| transactions | {summary(lambda c: c.removed['transactions'], '')} |")
    longest = summary(lambda c: 1000 * c.removed["longest_transaction_seconds"], "ms")
    print(f"| longest transaction | {longest} |")
    print(f"| write-ahead log | {summary(lambda c: c.removed['wal'] / 1e6, 'MB')} |")


def print_times(times: dict[str, Times]) -> None:
    """Print the latencies of the statements."""
    print("\n| statement | alone: p50 / p99, ms | during gc: p50 / p99, ms | ratio | n |\n|---|---|---|---|---|")
    for name in times["alone"]:
        (a, a99), (b, b99) = (median_and_p99(times[phase][name]) for phase in ("alone", "gc"))
        count = f"{len(times['alone'][name]):,} / {len(times['gc'][name]):,}"
        print(f"| {name} | {a:.1f} / {a99:.1f} | {b:.1f} / {b99:.1f} | {b / a:.2f} / {b99 / a99:.2f} | {count} |")


def median_and_p99(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return statistics.median(times), float(np.quantile(times, 0.99))


def position() -> int:
    """Position in the write-ahead log, in bytes."""
    with database.engine().connect() as connection:
        return int(connection.scalar(text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")))


def table_bytes() -> int:
    """Size of the table of points, with its index and TOAST table."""
    with database.engine().connect() as connection:
        return int(connection.scalar(text("SELECT pg_total_relation_size('metric_chunks')")))


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def vacuum() -> float:
    """Vacuum the table of points, as autovacuum does within minutes; return the seconds."""
    start = time.perf_counter()
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM metric_chunks"))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
