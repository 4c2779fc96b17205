"""Progress bars on standard error while a command waits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from service.specs.quantities import duration

if TYPE_CHECKING:
    from kotrain.client import Client
    from service.comparisons.answers import ComparisonAnswer
    from service.datasets.schemas import DatasetDetail
    from service.jobs.schemas import JobView
    from service.specs.formats import FileFormat


def _bar(*columns: ProgressColumn) -> Progress:
    console = tables.console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def wait_for_jobs(client: Client, jobs: list[JobView]) -> list[JobView]:
    """Wait until the jobs have ended and return them."""
    with _bar(TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=len(jobs))
        return client.wait(jobs, on_progress=lambda polled: bar.update(task, completed=_amount(polled)))


def _amount(jobs: list[JobView]) -> float:
    """Completed work, in jobs; a running job counts as the fraction of its steps done."""
    return sum(
        1.0 if job.status.is_final else job.progress.step / (job.progress.total_steps or 1 << 30) for job in jobs
    )


def follow(client: Client, started: ComparisonAnswer) -> ComparisonAnswer:
    """Wait until the comparison has ended and return it."""
    with _bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("starting", total=None)

        def show(answer: ComparisonAnswer) -> None:
            progress = answer.progress
            done = progress.succeeded + progress.diverged + progress.failed + progress.cancelled
            seconds = progress.seconds_left
            left = "" if seconds is None else f", at most {duration(seconds)} of device time left"
            bar.update(task, description=f"{progress.phase}{left}", completed=done, total=progress.jobs)

        return client.wait_for_comparison(started, on_progress=show)


def send(
    client: Client, file: Path, name: str, file_format: FileFormat | None, label: str | None, image_size: int | None
) -> DatasetDetail:
    """Upload a file as a data set; the server validates it after the last byte."""
    with _bar(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        size = file.stat().st_size
        task = bar.add_task("sending", total=size)

        def sent(size_bytes: int) -> None:
            bar.update(task, completed=size_bytes, description="sending" if size_bytes < size else "checking")

        return client.add_dataset(file, name, format=file_format, label=label, image_size=image_size, on_sent=sent)
