"""`kotrain demo`: start temporary servers, run a comparison over HTTP, print its results, remove the servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from uuid import UUID

from kotrain import findings, home, progress, tables
from kotrain.client import Client
from kotrain.errors import KotrainError
from kotrain.first_look import EPOCHS, SEEDS, first_look
from kotrain.output import note
from service.comparisons.answers import ComparisonAnswer
from service.specs.quantities import duration
from service.specs.states import ComparisonStatus
from service.specs.text import counted

PREFIX = "kotrain-demo-"
"""Of the temporary folder, followed by the process id."""
START_SECONDS, STOP_SECONDS = 60.0, 30.0
PLAIN_SECONDS = 5.0
"""Between two lines of progress if standard error is not a terminal."""


class DemoFailed(KotrainError):
    """The stack did not start, or the comparison failed."""


def main(epochs: int, seeds: int, tuning_seeds: int, report: Path | None = None) -> int:
    """Run the study `first-look`; print its results and, on the last line, the condensed task's answer as JSON.

    Writes the HTML report to `report`, if given. Returns the exit status: 1 if a mean deviates from the reference
    table (checked for the default epochs and seeds only), else 0. Raises KotrainError if the stack does not start or a
    job fails. SIGTERM stops it like Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if report is not None:
        _try_to_write(report)
    start = time.monotonic()
    note("starting PostgreSQL, Valkey, the API and a worker")
    with stack() as client:
        note(f"kotrain is running at {client.url}")
        answer = compare(client, first_look(epochs, seeds, tuning_seeds))
        out = tables.console()
        agrees = findings.write(out, answer, is_reference=(epochs, seeds) == (EPOCHS, SEEDS))
        if report is not None:
            report.write_bytes(client.report(answer))
    trained, elapsed = len(_jobs(answer)), time.monotonic() - start
    out.print(
        f"{trained} runs in {duration(elapsed)}. The temporary servers are stopped and their files are removed.\n"
    )
    print(next(task for task in answer.tasks if task.label == "condensed").model_dump_json())
    return 0 if agrees else 1


def _try_to_write(report: Path) -> None:
    """Raise DemoFailed before training rather than after it."""
    try:
        report.open("ab").close()
    except OSError as error:
        raise DemoFailed(f"cannot write the report to {report}: {error.strerror}") from None


# --- the stack -------------------------------------------------------------------------------------------------------


@contextmanager
def stack() -> Iterator[Client]:
    """A client of a stack with a temporary home; the stack is stopped and the home removed on exit, also on errors."""
    _remove_leftovers()
    with TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        Path(folder).chmod(0o711)  # as root the database runs as another user, which needs to enter this folder
        home_folder = Path(folder, "home")
        with Path(folder, "log").open("w+") as log:
            process = _start(home_folder, log.fileno())
            try:
                running = _wait_until_up(home_folder, process)
                if running is None:
                    log.seek(0)
                    raise DemoFailed(f"the stack did not start: {log.read().strip()[-2000:] or 'its log is empty'}")
                with Client(running.url, home.key(home_folder)) as client:
                    yield client
            finally:
                _stop(process)


def _remove_leftovers() -> None:
    """Remove the folders of this user's demos that were killed."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*-*"):
        with suppress(OSError, ValueError):
            if folder.stat().st_uid == os.geteuid() and not Path("/proc", folder.name.split("-")[2]).exists():
                rmtree(folder, ignore_errors=True)


def _start(home_folder: Path, log: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service.commands", "up", "--port", "0", "--home", str(home_folder)]
    command.append("--until-end-of-input")  # it stops even if this process is killed
    # Without the user's own settings, and in a session of its own: Ctrl-C must not reach it before _stop does.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
    environment["TMPDIR"] = str(home_folder.parent)  # temporary files of its workers are removed with the folder
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
    )


def _wait_until_up(home_folder: Path, process: subprocess.Popen[bytes]) -> home.Running | None:
    """The address and process id of the stack once it is up; None if it exits or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if running := home.running(home_folder):
            return running
        time.sleep(0.05)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the stack; kill it if it does not stop in time."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its child processes die with it
        process.wait()


# --- the comparison --------------------------------------------------------------------------------------------------


def compare(client: Client, request: Mapping[str, Any]) -> ComparisonAnswer:
    """Run the comparison to its end. Diverged runs count as results; any other failure raises DemoFailed."""
    started = client.start_comparison(request)
    note(f"started a comparison of up to {counted(started.progress.jobs_at_most, 'run')}")
    follow = progress.follow if sys.stderr.isatty() else _follow_in_lines
    answer = follow(client, started)
    if answer.status is not ComparisonStatus.SUCCEEDED:
        missing = [f"{run.label}, seed {run.seed}: {run.why}" for task in answer.tasks for run in task.missing]
        first = f", for example {missing[0]}" if missing else ""
        raise DemoFailed(f"the comparison ended as {answer.status}; missing: {counted(len(missing), 'run')}{first}")
    return answer


def _follow_in_lines(client: Client, started: ComparisonAnswer) -> ComparisonAnswer:
    last = time.monotonic()

    def show(answer: ComparisonAnswer) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            done = answer.progress.succeeded + answer.progress.diverged
            note(f"{answer.progress.phase}: {done} of {counted(answer.progress.jobs, 'run')} done")

    return client.wait_for_comparison(started, on_progress=show)


def _jobs(answer: ComparisonAnswer) -> set[UUID]:
    """The jobs that were trained; a run that serves two optimizers (fixed rate = chosen rate) counts once."""
    reported = {job for task in answer.tasks for group in task.groups for job in group.jobs}
    return reported | {
        job for task in answer.tasks for view in task.tuning for trial in view.trials for job in trial.jobs
    }
