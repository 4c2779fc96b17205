"""`kotrain demo`: a whole stack, a real study over HTTP, a verdict, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kotrain import findings, home, study, tables
from kotrain.client import Client
from kotrain.errors import KotrainError
from kotrain.study import Arm, Outcome, Plan, Run
from service.schemas import JobView
from service.spec import JobStatus, Reason

START_SECONDS, STOP_SECONDS = 60.0, 30.0
PLAIN_SECONDS = 5.0
"""Between two lines of progress where nobody watches a bar."""


class DemoFailed(KotrainError):
    """The stack did not start, or jobs failed."""


def main(plan: Plan) -> int:
    """Run the study and print tables, text and, as the last line of standard output, the condensed setting's answer.

    Answers the exit status: 1 where a mean does not agree with the reference table, which is for the default plan
    only, else 0. Raises a KotrainError where the stack does not start or a job fails. SIGTERM stops it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    _note("starting PostgreSQL, Valkey, the API and a worker")
    with stack() as client:
        _note(f"kotrain answers at {client.url}")
        outcomes, ended, chosen = run_study(client, plan)
    out = tables.console()
    agrees = findings.write(out, plan, outcomes, ended, chosen)
    runs, seconds = len(ended), time.monotonic() - began
    out.print(f"{runs} runs in {seconds:.0f} s, submitted over HTTP; the stack is stopped and its files are removed.\n")
    print(outcomes["condensed"].answer.model_dump_json())
    return 0 if agrees else 1


# --- the stack -------------------------------------------------------------------------------------------------------


@contextmanager
def stack() -> Iterator[Client]:
    """A client of a stack with a temporary home, stopped and removed in the end, however that comes."""
    with TemporaryDirectory(prefix="kotrain-demo-") as folder:
        Path(folder).chmod(0o711)  # root's database runs as another user, who must be able to pass
        place = Path(folder, "home")
        with Path(folder, "log").open("w+") as log:
            process = _start(place, log.fileno())
            try:
                running = _running(place, process)
                if running is None:
                    log.seek(0)
                    raise DemoFailed(f"the stack did not start: {log.read().strip()[-2000:] or 'it said nothing'}")
                with Client(running.url, home.key(place)) as client:
                    yield client
            finally:
                _stop(process)


def _start(place: Path, log: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service.commands", "up", "--port", "0", "--home", str(place)]
    # Not the user's own database, and not the terminal's Ctrl-C: it is stopped in order, once.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    environment["TMPDIR"] = str(place.parent)  # what its workers leave there goes with the rest
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def _running(place: Path, process: subprocess.Popen[bytes]) -> home.Running | None:
    """What the stack says about itself once it is up; None where it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if found := home.running(place):
            return found
        time.sleep(0.05)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and kill what does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its parts end with it
        process.wait()


# --- the study -------------------------------------------------------------------------------------------------------


def run_study(
    client: Client, plan: Plan
) -> tuple[dict[str, Outcome], dict[Run, JobView], dict[tuple[str, study.Candidate], Arm]]:
    """Train everything: outcomes by initialization, all jobs, and the arms that validation chose.

    A run that is part of two questions (the chosen rate is the fixed one) is trained once.
    """
    tuning, fixed = study.tuning_runs(plan), study.reported_runs(plan, study.fixed_arms())
    with watching() as watch:
        jobs = {run: client.submit(run.spec(plan.epochs)) for run in [*tuning, *fixed]}
        _note(f"submitted {len(jobs)} jobs: {len(tuning)} to choose learning rates, {len(fixed)} at fixed ones")
        tuned = _ended(client, {run: jobs[run] for run in tuning}, watch, "choosing learning rates")
        chosen = study.choose(study.validation(tuned))
        more = [run for run in study.reported_runs(plan, chosen.values()) if run not in jobs]
        jobs |= {run: client.submit(run.spec(plan.epochs)) for run in more}
        _note(f"validation has chosen; submitted {len(more)} more jobs at the chosen rates")
        ended = _ended(client, jobs, watch, "training")
    outcomes = {
        init: Outcome(
            init, client.compare(study.DATASET, study.MODEL, tag=["study:demo", f"init:{init}", "part:report"])
        )
        for init in study.INITS
    }
    return outcomes, ended, chosen


Watch = Callable[[str, list[JobView], int], None]
"""Told what is going on: the stage, the jobs seen so far, and how many there are."""


def _ended(client: Client, jobs: Mapping[Run, JobView], watch: Watch, stage: str) -> dict[Run, JobView]:
    """The jobs at their end. A diverged run is a result; for another failure DemoFailed is raised."""
    views = client.wait(jobs.values(), on_progress=lambda seen: watch(stage, seen, len(jobs)))
    failed = [job for job in views if job.status is not JobStatus.SUCCEEDED and job.reason is not Reason.DIVERGED]
    if failed:
        raise DemoFailed(f"{len(failed)} of {len(views)} jobs failed; {failed[0].id}: {failed[0].message}")
    return dict(zip(jobs, views, strict=True))


@contextmanager
def watching() -> Iterator[Watch]:
    """Progress on standard error: a bar for a terminal, else a line every few seconds."""
    console = tables.console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("[dim]{task.fields[now]}"), console=console, transient=True) as bar:
        task = bar.add_task("", now="")

        def watch(stage: str, seen: list[JobView], total: int) -> None:
            bar.update(task, description=stage, completed=_done(seen), total=total, now=_now(seen))

        yield watch


def _lines() -> Watch:
    last = time.monotonic()

    def watch(stage: str, seen: list[JobView], total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            _note(f"{stage}: {_done(seen)} of {total} done; now {_now(seen) or 'none running'}")

    return watch


def _done(seen: Iterable[JobView]) -> int:
    return sum(job.status.is_final for job in seen)


def _now(seen: Iterable[JobView]) -> str:
    """What trains at the moment."""
    running = [job for job in seen if job.status is JobStatus.RUNNING]
    return ", ".join(f"{tables.optimizer_label(job.spec['optimizer'])} seed={job.spec['seed']}" for job in running[:2])


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
