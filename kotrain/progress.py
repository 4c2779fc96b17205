"""Progress on standard error while a command waits: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from kotrain import tables
from kotrain.output import note
from service.specs.quantities import duration
from service.specs.states import JobStatus

if TYPE_CHECKING:
    from kotrain.client import Client
    from service.comparisons.answers import ComparisonAnswer
    from service.datasets.schemas import DatasetDetail
    from service.jobs.schemas import JobView


LINE_SECONDS = 10.0
"""Time between two lines of progress."""


def _bar(*columns: ProgressColumn) -> Progress:
    console = tables.console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class _Lines:
    """Progress on standard error that is no terminal: a line when it has changed, at most one every 10 seconds."""

    def __init__(self) -> None:
        self._is_used = not sys.stderr.isatty()
        self._printed, self._next = "", 0.0

    def show(self, line: str) -> None:
        now = time.monotonic()
        if self._is_used and line != self._printed and now >= self._next:
            note(line)
            self._printed, self._next = line, now + LINE_SECONDS


def wait_for_jobs(client: Client, jobs: list[JobView], timeout: float | None = None) -> list[JobView]:
    """Wait until the jobs have ended and return them. Raises WaitTimeout after `timeout` seconds."""
    lines, views = _Lines(), {job.id: job for job in jobs}
    with _bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=len(jobs))

        def show(polled: list[JobView]) -> None:
            views.update({job.id: job for job in polled})
            state = jobs_state(list(views.values()))
            bar.update(task, description=state, completed=_amount(list(views.values())))
            lines.show(state)

        return client.wait(jobs, timeout, on_progress=show)


def jobs_state(jobs: list[JobView]) -> str:
    """The number of jobs by status, such as `1 queued, 2 running`; for a single running job its step."""
    counts = Counter(job.status for job in jobs)
    if len(jobs) == 1 and counts[JobStatus.RUNNING]:
        return f"running, step {tables.steps(jobs[0])}"
    return ", ".join(f"{counts[status]} {status}" for status in JobStatus if counts[status])


def _amount(jobs: list[JobView]) -> float:
    """Completed work, in jobs; a running job counts as the fraction of its steps done."""
    return sum(
        1.0 if job.status.is_final else job.progress.step / (job.progress.total_steps or 1 << 30) for job in jobs
    )


def follow(client: Client, started: ComparisonAnswer) -> ComparisonAnswer:
    """Wait until the comparison has ended and return it."""
    lines = _Lines()
    with _bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("starting", total=None)

        def show(answer: ComparisonAnswer) -> None:
            progress = answer.progress
            done = progress.succeeded + progress.diverged + progress.failed + progress.cancelled
            seconds = progress.seconds_left
            left = "" if seconds is None else f", at most {duration(seconds)} of device time left"
            bar.update(task, description=f"{progress.phase}{left}", completed=done, total=progress.jobs)
            lines.show(f"{progress.phase}, {done} of {progress.jobs} runs{left}")

        return client.wait_for_comparison(started, on_progress=show)


def send(client: Client, file: Path, name: str, **options: Any) -> DatasetDetail:
    """`Client.add_dataset` with a bar; the server validates the file after the last byte."""
    with _bar(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        size = file.stat().st_size
        task = bar.add_task("sending", total=size)

        def sent(size_bytes: int) -> None:
            bar.update(task, completed=size_bytes, description="sending" if size_bytes < size else "checking")

        return client.add_dataset(file, name, **options, on_sent=sent)
