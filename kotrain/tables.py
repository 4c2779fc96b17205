"""Tables that the command line prints. Programs use `--json` instead."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kotrain.console import PIPE_COLUMNS
from kotrain.console import console as console
from service.specs import quantities
from service.specs.states import JobStatus
from service.specs.text import counted

if TYPE_CHECKING:
    from service.comparisons.answers import (
        CompareAnswer,
        ComparisonAnswer,
        ComparisonDryRun,
        ComparisonSummary,
        GroupView,
        PairView,
    )
    from service.comparisons.boards import Leaderboard
    from service.datasets.schemas import DatasetDetail, DatasetView
    from service.jobs.schemas import History, JobView
    from service.metrics.schemas import CurveView

STATUS_STYLE = {
    JobStatus.QUEUED: "dim",
    JobStatus.RUNNING: "cyan",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
}
HOLM, SPENDING = "p (Holm)", "p (planned looks)"
"""Column headers of adjusted p values."""
MAX_CLASSES = 40
"""Classes of a data set that are listed individually."""
WIDE_COLUMNS = 140
"""Width needed by the list of jobs with all columns."""


def plain(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """A table without borders; the columns in `right` are right-aligned."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title, title_justify="left"
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def jobs(listed: Iterable[JobView]) -> Table:
    """One row per job; a narrow terminal gets fewer columns, with the id in full."""
    narrow = shutil.get_terminal_size((PIPE_COLUMNS, 24)).columns < WIDE_COLUMNS
    columns = ["id", "status", "test", "seed", "optimizer"]
    if not narrow:
        columns += ["data", "model", "step", "created"]
    table = plain(*columns, right=("seed", "test"))
    for column, width in zip(table.columns, (36, 9, 6, 4), strict=False):
        column.min_width = width
    for job in listed:
        test = job.summary.metrics.get("test_accuracy") if job.summary else None
        cells = {
            "id": str(job.id),
            "status": _status(job),
            "test": _number(test),
            "seed": str(job.spec["seed"]),
            "optimizer": f"{job.optimizer_label} lr={job.spec['optimizer']['params']['lr']:g}",
            "data": job.spec["dataset"]["name"],
            "model": job.spec["model"]["name"],
            "step": steps(job),
            "created": local_time(job.created_at),
        }
        table.add_row(*(cells[column] for column in columns))
    return table


def result_line(job: JobView, url: str) -> str:
    """Id, status, test accuracy (`-` if there is none) and address of a job, separated by tabs."""
    test = job.summary.metrics.get("test_accuracy") if job.summary else None
    return "\t".join((str(job.id), str(_status(job)), _number(test), f"{url}/jobs/{job.id}"))


def job(shown: JobView) -> Table:
    """All details of a job."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("id", str(shown.id))
    table.add_row("status", _status(shown))
    rows = {
        "name": shown.name,
        "note": shown.note,
        "archived": local_time(shown.archived_at),
        "message": shown.message,
        "data set": _choice(shown.spec["dataset"]),
        "model": _choice(shown.spec["model"]),
        "optimizer": _choice(shown.spec["optimizer"]),
        "schedule": _choice(shown.spec["schedule"]),
        "budget": _pairs(shown.spec["budget"]),
        "seed": str(shown.spec["seed"]),
        "tags": ", ".join(f"{key}:{value}" for key, value in shown.tags.items()),
        "user": shown.user,
        "worker": shown.worker,
        "attempt": f"{shown.attempt}, {shown.failures} lost" if shown.failures else str(shown.attempt),
        "step": steps(shown),
        "created": local_time(shown.created_at),
        "started": local_time(shown.started_at),
        "finished": local_time(shown.finished_at),
        "retry of": str(shown.retry_of) if shown.retry_of else None,
    }
    if shown.summary:
        rows["training"] = (
            f"{quantities.duration(shown.summary.train_seconds)}, {shown.summary.parameters:,} parameters"
        )
        rows |= {name: _number(value) for name, value in sorted(shown.summary.metrics.items())}
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    return table


def history(shown: History) -> Table:
    """One row per event of a job, with the last line of a traceback."""
    table = plain("at", "attempt", "status", "reason", "message")
    for event in shown.events:
        lines = (event.message or "").strip().splitlines()
        table.add_row(
            local_time(event.at),
            str(event.attempt or ""),
            event.status,
            event.reason or "",
            Text(lines[-1] if lines else ""),
        )
    return table


def curves(metrics: Mapping[str, CurveView]) -> Table:
    """One row per curve: number of points, first and last value, extremes."""
    columns = ("points", "first", "last", "lowest", "highest", "last step")
    table = plain("metric", *columns, right=columns)
    for name, curve in sorted(metrics.items()):
        finite = [value for value in curve.values if value is not None]
        ends = (curve.values[0], curve.values[-1]) if curve.values else (None, None)
        extremes = (min(finite), max(finite)) if finite else (None, None)
        last_step = str(curve.steps[-1]) if curve.steps else "-"
        table.add_row(name, str(len(curve.steps)), *(_number(value) for value in (*ends, *extremes)), last_step)
    return table


# --- comparisons -----------------------------------------------------------------------------------------------------


def comparison(answer: CompareAnswer) -> Group:
    """Groups, pairs and the verdict."""
    parts: list[RenderableType] = []
    for table in (groups(answer), pairs(answer.pairs, HOLM)):
        parts += [table, ""] if table.row_count else []
    return Group(*parts, Text(answer.verdict.text))


def groups(answer: CompareAnswer) -> Table:
    """One row per group, best mean first."""
    table = plain(
        answer.group_by, "n", "mean ± sd", "95 % interval", "best", "diverged", right=("n", "best", "diverged")
    )
    if answer.target:
        table.add_column("steps to target", justify="right")
        table.add_column("seconds to target", justify="right")
    for group in answer.groups:
        row = [group.label, str(group.n), spread(group), interval(group.interval), _number(group.best)]
        row.append(str(group.diverged) if group.diverged else "-")
        if answer.target:
            row += [_number(group.steps_to_target, 0), _number(group.seconds_to_target, 2)]
        table.add_row(*row)
    return table


def pairs(tested: Sequence[PairView], p_name: str) -> Table:
    """One row per pair; `p_name` is the header of the adjusted p values."""
    table = plain("a", "b", "n", "a - b", "95 % interval", p_name, right=("n", "a - b", p_name))
    for pair in tested:
        p = p_value(pair.p_adjusted)
        table.add_row(pair.a, pair.b, str(pair.n), _signed(pair.difference), signed_interval(pair.interval), p)
    return table


def p_value(p: float | None) -> str:
    """A p value; `-` if there is none."""
    return quantities.p_value(p) or "-"


def spread(group: GroupView) -> str:
    """Mean and standard deviation."""
    return _mean_and_sd(group.mean, group.sd)


def _mean_and_sd(mean: float | None, sd: float | None) -> str:
    if mean is None or sd is None:
        return _number(mean)
    digits = _digits(mean, sd)
    return f"{mean:,.{digits}f} ± {sd:,.{digits}f}"


def interval(ends: tuple[float, float] | None) -> str:
    """An interval of values."""
    if ends is None:
        return "-"
    digits = _digits(*ends)
    return f"{ends[0]:,.{digits}f} .. {ends[1]:,.{digits}f}"


def signed_interval(ends: tuple[float, float] | None) -> str:
    """An interval of differences."""
    if ends is None:
        return "-"
    digits = _digits(*ends)
    return f"{ends[0]:+,.{digits}f} .. {ends[1]:+,.{digits}f}"


def _digits(*values: float) -> int:
    """Decimals: 4, or 0 for large numbers."""
    return 4 if max(map(abs, values)) < 1000 else 0


def verdict(answer: ComparisonAnswer) -> Group:
    """The results of each task, the verdict and the progress."""
    progress = answer.progress
    parts: list[RenderableType] = []
    for task in answer.tasks:
        parts.append(Text(task.label, style="bold"))
        for table in (groups(task), pairs(task.pairs, SPENDING if answer.plan.nominal_p else HOLM)):
            parts += [table, ""] if table.row_count else []
    parts += [Text(sentence) for sentence in answer.verdict]
    parts += warnings(answer.plan.warnings)
    done = progress.succeeded + progress.diverged + progress.failed + progress.cancelled
    of_all = f"{done} of {counted(progress.jobs, 'run')}"
    state = f"{answer.status}: {of_all} ({progress.reused} reused, {progress.diverged} diverged)"
    return Group(*parts, "", Text(state, style="dim"))


def plan(planned: ComparisonDryRun) -> Group:
    """The runs that a comparison would need, and their estimated time."""
    table = plain("task", "optimizer", "time per run", "estimated from", right=("time per run", "estimated from"))
    for estimate in planned.estimates:
        runs = counted(estimate.runs, "run") if estimate.runs else "no runs yet"
        table.add_row(estimate.task, estimate.optimizer, quantities.duration(estimate.seconds) or "unknown", runs)
    least = "" if planned.jobs_at_least == planned.jobs_at_most else f"{planned.jobs_at_least:,} to "
    seconds = planned.seconds_at_most
    time = "duration unknown" if seconds is None else f"at most {quantities.duration(seconds)} of device time"
    text = f"{least}{counted(planned.jobs_at_most, 'job')}, {planned.reused:,} of them already finished; {time}."
    methods = f"Methods paragraph for your paper, once the comparison has run: {planned.methods}"
    return Group(table, "", Text(methods), "", Text(text), *warnings(planned.plan.warnings))


def warnings(sentences: Sequence[str]) -> list[RenderableType]:
    """Warnings of a plan, one per line."""
    return [Text(f"Warning: {sentence}") for sentence in sentences]


def comparisons(listed: Iterable[ComparisonSummary]) -> Table:
    """One row per comparison."""
    table = plain("id", "status", "created", "user", "name")
    for summary in listed:
        created = local_time(summary.created_at)
        table.add_row(str(summary.id), str(summary.status), created, summary.user, Text(summary.name))
    return table


def leaderboard(answer: Leaderboard) -> Group:
    """One table per training setting."""
    parts: list[RenderableType] = []
    for board in answer.boards:
        setting = {path: value for path, value in board.setting.items() if not path.startswith("environment.")}
        numbers = ("#", "n", "gap to first", HOLM, "diverged")
        table = plain("#", "optimizer", "n", "mean ± sd", "95 % interval", *numbers[2:], right=numbers)
        for standing in board.standings:
            table.add_row(
                str(standing.rank),
                standing.label,
                str(standing.n),
                _mean_and_sd(standing.mean, standing.sd),
                interval(standing.interval),
                _signed(standing.behind_first),
                p_value(standing.p_behind),
                str(standing.diverged) if standing.diverged else "-",
            )
        parts += [Text(f"{answer.dataset} {answer.model}: {_pairs(setting)}", style="bold"), table, ""]
    return Group(*parts)


# --- data sets -------------------------------------------------------------------------------------------------------


def datasets(listed: Iterable[DatasetView]) -> Table:
    """One row per data set."""
    table = plain("name", "title", "training records", "availability", right=["training records"])
    for view in listed:
        table.add_row(view.name, view.title, f"{view.records:,}", "present" if view.present else view.fetch)
    return table


def dataset(detail: DatasetDetail) -> Group:
    """An uploaded data set: its classes with their number of records, how it was read, and warnings."""
    table = plain("class", "training records", "test records", right=["training records", "test records"])
    counts = zip(detail.class_names, detail.train_per_class, detail.test_per_class, strict=True)
    for name, train, test in islice(counts, MAX_CLASSES):
        table.add_row(Text(name), str(train), str(test))
    if len(detail.class_names) > MAX_CLASSES:
        table.add_row(f"and {len(detail.class_names) - MAX_CLASSES} more", "", "")
    return Group(Text(f"{detail.name}: {detail.title}"), table, *map(Text, detail.notes), *map(Text, detail.warnings))


# --- cells -----------------------------------------------------------------------------------------------------------


def _status(job: JobView) -> Text:
    is_cancelling = job.cancel_requested and not job.status.is_final
    reason = job.reason if job.status is JobStatus.FAILED else None
    text = f"{job.status}: {reason}" if reason else f"{job.status}, cancelling" if is_cancelling else str(job.status)
    return Text(text, style=STATUS_STYLE[job.status])


def steps(job: JobView) -> str:
    """The steps done, and of how many if known."""
    total = job.progress.total_steps
    return f"{job.progress.step} of {total}" if total else str(job.progress.step or "-")


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+,.{_digits(value)}f}"


def local_time(at: datetime | None) -> str:
    """In the local time zone, which is named; JSON has UTC."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if at else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _choice(choice: Mapping[str, Any]) -> str:
    return f"{choice['name']} {_pairs(choice['params'])}".strip()
