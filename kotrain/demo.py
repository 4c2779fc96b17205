"""`kotrain demo`: a whole stack, a real comparison over HTTP, a verdict, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from kotrain import findings, home, progress, tables
from kotrain.client import Client
from kotrain.errors import KotrainError
from kotrain.first_look import EPOCHS, SEEDS, first_look
from kotrain.output import note
from service.comparisons.answers import ComparisonAnswer
from service.specs.states import ComparisonStatus

START_SECONDS, STOP_SECONDS = 60.0, 30.0
PLAIN_SECONDS = 5.0
"""Between two lines of progress where nobody watches a bar."""


class DemoFailed(KotrainError):
    """The stack did not start, or jobs failed."""


def main(epochs: int, seeds: int, tuning_seeds: int, report: Path | None = None) -> int:
    """Run `first-look`; print tables, text and, as the last line of standard output, the condensed task's answer.

    The report of the comparison is written to `report`, if that is given. Answers the exit status: 1 where a mean does
    not agree with the reference table, which is for the default seeds and epochs only, else 0. Raises a KotrainError
    where the stack does not start or a job fails. SIGTERM stops it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if report is not None:
        _try_to_write(report)
    began = time.monotonic()
    note("starting PostgreSQL, Valkey, the API and a worker")
    with stack() as client:
        note(f"kotrain answers at {client.url}")
        answer = compare(client, first_look(epochs, seeds, tuning_seeds))
        out = tables.console()
        agrees = findings.write(out, answer, is_reference=(epochs, seeds) == (EPOCHS, SEEDS))
        if report is not None:
            report.write_bytes(client.report(answer))
    trained, elapsed = len(_jobs(answer)), time.monotonic() - began
    out.print(
        f"{trained} runs in {elapsed:.0f} s, asked for over HTTP; the stack is stopped and its files are removed.\n"
    )
    print(next(task for task in answer.tasks if task.label == "condensed").model_dump_json())
    return 0 if agrees else 1


def _try_to_write(report: Path) -> None:
    """Now rather than after two minutes."""
    try:
        report.open("ab").close()
    except OSError as error:
        raise DemoFailed(f"the report cannot be written to {report}: {error.strerror}") from None


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


# --- the comparison --------------------------------------------------------------------------------------------------


def compare(client: Client, request: Mapping[str, Any]) -> ComparisonAnswer:
    """The comparison at its end. A diverged run is a result; for another failure DemoFailed is raised."""
    started = client.start_comparison(request)
    note(f"asked for a comparison: up to {started.progress.jobs_at_most} runs")
    follow = progress.follow if sys.stderr.isatty() else _follow_in_lines
    answer = follow(client, started)
    if answer.status is not ComparisonStatus.SUCCEEDED:
        missing = [f"{run.label}, seed {run.seed}: {run.why}" for task in answer.tasks for run in task.missing]
        raise DemoFailed(
            f"the comparison has {answer.status}; {len(missing)} runs are missing; {'; '.join(missing[:1])}"
        )
    return answer


def _follow_in_lines(client: Client, started: ComparisonAnswer) -> ComparisonAnswer:
    last = time.monotonic()

    def show(answer: ComparisonAnswer) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            done = answer.progress.succeeded + answer.progress.diverged
            note(f"{answer.progress.phase}: {done} of {answer.progress.jobs} runs done")

    return client.wait_for_comparison(started, on_progress=show)


def _jobs(answer: ComparisonAnswer) -> set[UUID]:
    """What was trained: a run that is part of two questions (the chosen rate is the fixed one) was so once."""
    reported = {job for task in answer.tasks for group in task.groups for job in group.jobs}
    return reported | {
        job for task in answer.tasks for view in task.tuning for trial in view.trials for job in trial.jobs
    }
