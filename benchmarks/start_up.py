"""Claim: `kotrain --help` and the commands that only talk HTTP take at most 0.4 s of CPU; a worker is ready to claim
after at most 2.5 s of CPU; and the first job of a kind starts no later than if a worker loaded everything at once.

    python -m benchmarks.start_up                     # this checkout
    python -m benchmarks.start_up --against PATH      # side by side with another checkout that has its own .venv
    python -m benchmarks.start_up imports             # one part: commands, imports, worker or jobs

Prints Markdown. CPU is user and system time of all processes; given are the median and the range over the runs, which
alternate between the checkouts. `imports` adds the own times of `python -X importtime` by package. `jobs` is the wall
time until the first step of a job is reported: from the start of the worker for a job that waits in the queue, and
from its submission for a job that an idle worker takes. Both checkouts must have the same database schema.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
from sqlalchemy import text

from benchmarks.listeners import api
from kotrain import Client, Conflict
from service.accounts import api_keys
from service.operations.embedded.servers import Embedded
from service.storage import database

HERE = Path(__file__).parents[1]
COMMANDS = (["--help"], ["submit", "--help"], ["jobs"], ["catalog"], ["comparison", "list"])
API = """
import contextlib
import service.commands
with contextlib.suppress(ModuleNotFoundError):
    import service.operations.commands
from service.app import create_app
create_app()
"""
PRELOAD = """
from multiprocessing import forkserver
forkserver.ensure_running = lambda: None
forkserver.set_forkserver_preload = lambda names: [__import__(name) for name in names]
from workers.__main__ import start_forkserver
start_forkserver()
"""
IMPORTS = {
    "`kotrain --help`": ["-m", "kotrain", "--help"],
    "API": ["-c", API],
    "worker process": ["-c", "from workers import tasks; import celery.apps.worker, celery.concurrency.thread"],
    "forkserver, until the worker is ready": ["-c", PRELOAD],
}
SHOWN_PACKAGES = 14
NESTED = ("torch", "sklearn", "scipy")
"""Packages shown by their second name too."""
FIRST_STEP_SECONDS = 120
IDLE_SECONDS = 12
"""After this, an idle worker has loaded everything."""

MLP = {"model": "mlp", "budget": {"steps": 20}, "device": "cpu"}
CIFAR10 = {"name": "cifar10", "params": {"limit": 200}}
JOBS = {
    "digits, MLP, Adam": MLP | {"dataset": "digits", "optimizer": "adam"},
    "digits, MLP, KO": MLP | {"dataset": "digits", "optimizer": "ko"},
    "CIFAR-10, ResNet, SGD": MLP | {"dataset": CIFAR10, "model": "resnet18", "optimizer": "sgd", "batch_size": 8},
    "own table, MLP, Adam": MLP | {"dataset": "tables/bench", "optimizer": "adam"},
}


def checkouts(other: Path | None) -> dict[str, Path]:
    """Name -> folder, the other one first."""
    return ({"before": other.resolve()} if other else {}) | {"now": HERE}


def python(checkout: Path) -> str:
    """The interpreter of a checkout's own environment."""
    return str(checkout / ".venv/bin/python")


def summary(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print("|", " | ".join(head), "|\n|", " | ".join("---" for _ in head), "|")
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


def alternate(trees: dict[str, Path], runs: int, measure: Callable[[Path], float]) -> list[str]:
    """Summary of `runs` measurements per checkout."""
    values: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(runs):
        for name, tree in trees.items():
            values[name].append(measure(tree))
    return [summary(values[name]) for name in trees]


def cpu_seconds(line: Sequence[str], tree: Path) -> float:
    """User and system time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, cwd=tree, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(trees: dict[str, Path], runs: int) -> None:
    """CPU time of commands of the command line."""
    with api() as (url, _):
        os.environ["KOTRAIN_URL"] = url
        rows = []
        for command in COMMANDS:
            measured = alternate(
                trees, runs, lambda tree, command=command: cpu_seconds([tree / ".venv/bin/kotrain", *command], tree)
            )
            rows.append([f"`kotrain {' '.join(command)}`", *measured])
    table([f"command, n = {runs}, CPU s", *trees], rows)


def own_times(log: str) -> Counter[str]:
    """Package -> milliseconds within its own modules, of the output of `-X importtime`."""
    times: Counter[str] = Counter()
    for microseconds, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", log):
        names = module.split(".")
        times[".".join(names[: 2 if names[0] in NESTED else 1])] += int(microseconds) / 1000
        times["modules"] += 1
    return times


def imports(trees: dict[str, Path], runs: int) -> None:
    """Import times by package."""
    for title, arguments in IMPORTS.items():
        times: dict[str, list[Counter[str]]] = {name: [] for name in trees}
        for _ in range(runs):
            for name, tree in trees.items():
                line = [python(tree), "-P", "-X", "importtime", *arguments]
                done = subprocess.run(line, cwd=tree, check=True, capture_output=True, text=True)
                times[name].append(own_times(done.stderr))
        medians = {
            name: Counter({package: statistics.median(run[package] for run in logs) for package in logs[0]})
            for name, logs in times.items()
        }
        modules = {name: medians[name].pop("modules") for name in medians}
        order = sorted(set().union(*medians.values()), key=lambda key: -max(medians[name][key] for name in medians))
        print(f"{title} (own time in ms by package, median of {runs}):\n")
        rows = [[key, *(f"{medians[name][key]:.0f}" for name in medians)] for key in order[:SHOWN_PACKAGES]]
        rows.append(["all packages", *(f"{sum(medians[name].values()):.0f}" for name in medians)])
        rows.append(["number of modules", *(str(int(modules[name])) for name in medians)])
        table(["package", *medians], rows)


@contextmanager
def worker(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker process of a checkout, killed at the end; its log is readable on `stderr`."""
    line = [python(tree), "-P", "-m", "workers"]
    process = subprocess.Popen(line, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()  # its training processes die with it
        process.wait()


def until_ready(process: subprocess.Popen[str]) -> None:
    """Wait for the line of the log that says so, then keep the pipe empty."""
    assert process.stderr is not None
    next(line for line in process.stderr if " ready." in line)
    Thread(target=process.stderr.read, daemon=True).start()


def ready_cpu_seconds(tree: Path) -> float:
    """CPU time of a worker and its forkserver until it is ready to claim."""
    with worker(tree) as process:
        until_ready(process)
        own = psutil.Process(process.pid)
        times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
        return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def workers(trees: dict[str, Path], runs: int) -> None:
    """CPU time until a worker is ready."""
    table([f"n = {runs}, CPU s", *trees], [["worker ready to claim", *alternate(trees, runs, ready_cpu_seconds)]])


def first_step_at(job_id: str) -> float:
    """Wait until a worker has reported the job's first step, and return the time."""
    deadline = time.monotonic() + FIRST_STEP_SECONDS
    with database.engine().connect() as connection:
        while not connection.scalar(text("SELECT step > 0 FROM jobs WHERE id = :id"), {"id": job_id}):
            assert time.monotonic() < deadline, f"job {job_id} made no step within {FIRST_STEP_SECONDS} s"
            connection.rollback()
            time.sleep(0.005)
    return time.monotonic()


def jobs(trees: dict[str, Path], runs: int) -> None:
    """Wall time until the first step of the first job of a kind."""
    with api() as (url, _), Client(url) as client:
        rows = [",".join(str(number * factor % 7) for factor in range(1, 5)) for number in range(400)]
        Path("bench.csv").write_text("\n".join(["a,b,c,label", *rows]))
        client.add_dataset("bench.csv", "bench", label="label")

        def submitted(spec: dict[str, object]) -> str:
            return str(client.submit(spec).id)

        def cancel(job_id: str) -> None:
            with suppress(Conflict):  # it has ended
                client.cancel(job_id)

        def waiting(tree: Path, spec: dict[str, object]) -> float:
            job_id, begin = submitted(spec), time.monotonic()
            with worker(tree) as process:
                until_ready(process)
                seconds = first_step_at(job_id) - begin
                cancel(job_id)
            return seconds

        def idle(tree: Path, spec: dict[str, object]) -> float:
            with worker(tree) as process:
                until_ready(process)
                time.sleep(IDLE_SECONDS)
                begin = time.monotonic()
                job_id = submitted(spec)
                seconds = first_step_at(job_id) - begin
                cancel(job_id)
            return seconds

        for title, measure in (("from the start of the worker", waiting), ("from submission, worker idle", idle)):
            table(
                [f"first job, n = {runs}, s {title}", *trees],
                (
                    [kind, *alternate(trees, runs, lambda tree, spec=spec, measure=measure: measure(tree, spec))]
                    for kind, spec in JOBS.items()
                ),
            )


def main() -> None:
    """Start the servers and measure the parts asked for."""
    parts = {"commands": commands, "imports": imports, "worker": workers, "jobs": jobs}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--against", type=Path, help="another checkout with its own .venv")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    trees = checkouts(options.against)
    data = Path(os.environ.get("KOTRAIN_DATA_DIR", HERE.parent / "shared/data"))
    with tempfile.TemporaryDirectory(prefix="kotrain-bench-") as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder, "home"), fast=True) as servers:
            os.environ |= {
                "KOTRAIN_DATABASE_URL": servers.database_url,
                "KOTRAIN_BROKER_URL": servers.broker_url,
                "KOTRAIN_HOME": folder,
                "KOTRAIN_DATA_DIR": folder,  # uploads are written below it
                "KOTRAIN_BEAT_SECONDS": "0.05",
                "OMP_NUM_THREADS": "1",
            }
            Path(folder, "cifar10").symlink_to(data.resolve() / "cifar10")
            database.migrate()
            os.environ["KOTRAIN_KEY"] = api_keys.create("bench")
            os.chdir(folder)
            for part in options.parts or parts:
                parts[part](trees, options.runs)


if __name__ == "__main__":
    main()
