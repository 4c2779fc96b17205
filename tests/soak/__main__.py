"""`python -m tests.soak`: inject random faults for ten minutes; exit with status 1 if anything was lost."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.accounts import api_keys
from service.operations.embedded.servers import Embedded
from service.storage import database
from service.storage.tables import Job
from tests.acceptance.faults import injection
from tests.acceptance.faults.ledger import results
from tests.acceptance.faults.references import undisturbed
from tests.acceptance.faults.specs import SPECS
from tests.acceptance.faults.stack import SETTINGS, Stack
from tests.soak.storm import DRAIN_SECONDS, LOOK_SECONDS, WORKERS, Jobs, Storm

SLOW_MACHINE = {"KOTRAIN_LEASE_SECONDS": "5", "KOTRAIN_STALL_SECONDS": "10"}
"""Longer limits: several faults at once slow a small machine down, and slow processes must not count as dead."""
SETTLE_SECONDS = 240.0
REPORT_SECONDS = 30.0


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops and unmounts everything
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kotrain-soak-")))
        folder.chmod(0o711)  # as root, the servers run as another user
        servers = stack.enter_context(Embedded(folder / "home"))  # durable, because the database is killed, too
        files = folder / "files"
        files.mkdir()
        os.environ.update(
            KOTRAIN_DATABASE_URL=servers.database_url,
            KOTRAIN_BROKER_URL=servers.broker_url,
            KOTRAIN_HOME=str(folder / "home"),
            KOTRAIN_FILES=str(files),
        )
        database.migrate()
        disk = stack.enter_context(injection.small_disk(files, 256)) if os.geteuid() == 0 else None
        installation = stack.enter_context(Stack(servers, api_keys.create("ada"), SETTINGS | SLOW_MACHINE))
        storm = Storm(installation, files, options.seed)
        storm.disk = disk
        report = run_soak(storm, options)
    print(table(report))
    print(json.dumps(report))
    return 1 if report["lost"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="duration of the fault injection")
    parser.add_argument(
        "--faults", type=int, default=100, help="minimum number of faults; extends the duration if needed"
    )
    parser.add_argument("--jobs", type=int, default=200, help="minimum number of jobs; extends the duration if needed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults, the jobs and their order")
    parser.add_argument(
        "--specs", nargs="+", default=[name for name in SPECS if name not in ("tiny", "long")], choices=list(SPECS)
    )
    return parser.parse_args()


def run_soak(storm: Storm, options: argparse.Namespace) -> dict[str, Any]:
    """Inject faults, undo them, wait for the last jobs, and return the report."""
    stack = storm.stack
    stack.api.ready()
    log(f"undisturbed runs of {len(options.specs)} kinds of jobs")
    stack.have_workers(WORKERS)
    references = undisturbed(stack, options.specs)
    storm.jobs = jobs = Jobs(stack.api.url, stack.key, storm.ledger, references, options.seed)
    started = time.monotonic()
    pause = options.seconds / (options.faults * 1.1)
    next_fault, next_report = started + 2, started
    while (now := time.monotonic()) < started + options.seconds or (
        sum(storm.injected.values()) < options.faults or len(storm.ledger.entries) < options.jobs
    ):
        storm.step()
        jobs.offer()
        if now >= next_fault and storm.inject() is not None:
            next_fault = now + storm.random.uniform(0.5, 1.5) * pause
        if now >= next_report:
            next_report = now + REPORT_SECONDS
            log(f"{now - started:.0f} s: {sum(storm.injected.values())} faults, {len(storm.ledger.entries)} jobs")
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - started
    log("no more faults; waiting for the last jobs")
    storm.undo_all()
    jobs.close()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (storm.ledger.unfinished or stack.strays()) and time.monotonic() < deadline:
        storm.step()
        time.sleep(LOOK_SECONDS)
    return build_report(storm, jobs, seconds, options.seed)


def build_report(storm: Storm, jobs: Jobs, seconds: float, seed: int) -> dict[str, Any]:
    """Return the injected faults, the outcomes of the jobs, and the problems."""
    with database.transaction() as session:
        problems = storm.ledger.problems(session)
        stored = list(session.scalars(select(Job)))
        stored_results = results(session, [job.id for job in stored])
    for output in storm.stubborn:
        log(f"a worker did not stop within {DRAIN_SECONDS:g} s; its last output:\n{output}")
    problems += [f"process left behind: {stray}" for stray in storm.stack.strays()]
    return {
        "seed": seed,
        "seconds": round(seconds),
        "faults": dict(sorted(storm.injected.items())),
        "injected": sum(storm.injected.values()),
        "jobs": len(storm.ledger.entries),
        "ended": dict(sorted(Counter(str(job.reason) for job in stored).items())),
        "submitted_twice": jobs.counts["submitted twice"],
        "requests_repeated": jobs.repeats,
        "attempts": sum(job.attempt for job in stored),
        "failures": sum(job.failures for job in stored),
        "interrupted": sum(job.attempt > 1 for job in stored),
        "killed_while_draining": len(storm.stubborn),
        "points": sum(result.points for result in stored_results.values()),
        "longest_ownerless_seconds": round(storm.ledger.longest_ownerless_seconds, 1),
        "lost": len(problems),
        "problems": problems,
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as a text table."""
    lines = [f"{'fault':28}injected", *(f"{name:28}{number:8}" for name, number in report["faults"].items())]
    lines += [f"{'in all':28}{report['injected']:8}", ""]
    lines += [f"{'jobs':28}{report['jobs']:8}", *(f"  {name:26}{number:8}" for name, number in report["ended"].items())]
    for name in ("interrupted", "attempts", "killed_while_draining", "points", "submitted_twice", "requests_repeated"):
        lines.append(f"{name.replace('_', ' '):28}{report[name]:8}")
    lines += [f"{'longest without an owner':28}{report['longest_ownerless_seconds']:6} s", ""]
    lines += [f"{'lost':28}{report['lost']:8}", *(f"  {problem}" for problem in report["problems"])]
    return "\n".join(lines)


def log(line: str) -> None:
    print(f"soak: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
