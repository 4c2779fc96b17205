"""`kotrain comparison`: start comparisons, follow their runs, read their verdicts."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, get_args

import typer

from kotrain import edits, request_body
from kotrain.output import Json, PlanOnly, note, noting, say, say_all
from service.specs.formats import ReportFormat
from service.specs.states import ComparisonStatus
from service.specs.text import listed

app = typer.Typer(help="Plan, run and evaluate comparisons of optimizers.")
Id = Annotated[str, typer.Argument(metavar="ID", help="Comparison id, or its beginning or end.")]
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""One of these is set if a browser can open a window."""


@app.command()
def start(
    file: Annotated[str, typer.Argument(metavar="FILE.json", help="Request body; `-` reads standard input.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the verdict; exit status 1 unless the comparison succeeds.")
    ] = False,
    dry_run: PlanOnly = False,
    as_json: Json = False,
) -> int:
    """Start a comparison and print its id; with --wait also its verdict."""
    from kotrain import progress, tables
    from kotrain.client import Client

    body = request_body.document(file)
    with Client() as client:
        if dry_run:
            plan = client.start_comparison(body, dry_run=True)
            say(plan) if as_json else tables.console().print(tables.plan(plan))
            return 0
        started = client.start_comparison(body)
        note(str(started.id)) if as_json else print(started.id, flush=True)
        for warning in started.plan.warnings:
            note(f"warning: {warning}")
        if not wait:
            say(started) if as_json else None
            return 0
        with noting("the comparison continues; `kotrain comparison cancel ID` stops it"):
            answer = progress.follow(client, started)
    say(answer) if as_json else tables.console().print(tables.verdict(answer))
    return int(answer.status is not ComparisonStatus.SUCCEEDED)


@app.command()
def show(comparison: Id, as_json: Json = False) -> None:
    """Show the progress and the results of a comparison."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.comparison(comparison)
    say(answer) if as_json else tables.console().print(tables.verdict(answer))


@app.command(name="list")
def list_(
    archived: edits.Archived = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 20,
    as_json: Json = False,
) -> None:
    """List comparisons, newest first."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        listed = list(islice(client.comparisons(archived=archived, page_size=min(limit, 100)), limit))
    if as_json:
        say_all(listed)
    elif listed:
        tables.console().print(tables.comparisons(listed))
    else:
        note("no comparisons")


@app.command()
def edit(
    comparison: Id,
    name: edits.Name = None,
    tag: edits.Tags = None,
    no_tags: edits.NoTags = False,
    note: edits.Note = None,
    archive: edits.Archive = None,
) -> None:
    """Rename, tag, annotate or archive a comparison of yours; its own jobs are archived with it."""
    from kotrain.client import Client

    wanted = edits.changes(name, tag, no_tags, note, archive)
    with Client() as client:
        print(client.change_comparison(comparison, **wanted).id)


@app.command()
def cancel(comparison: Id) -> None:
    """Cancel a comparison and those of its jobs that no other comparison or user needs."""
    from kotrain.client import Client

    with Client() as client:
        summary = client.cancel_comparison(comparison)
    print(f"{summary.id} {summary.status}")


@app.command()
def report(
    comparison: Id,
    format: Annotated[str, typer.Option(help="Format: html, csv, latex or json.")] = "html",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write to. Default: standard output.")
    ] = None,
    is_opened: Annotated[
        bool, typer.Option("--open", help="Open the HTML report in a browser; without --output, from a temporary file.")
    ] = False,
) -> None:
    """Write the report of a comparison: a self-contained HTML page, a CSV or LaTeX table, or JSON."""
    from kotrain.client import Client

    report_format = _format(format)
    if is_opened and report_format != "html":
        raise typer.BadParameter("--open needs the HTML report: omit --format")
    with Client() as client:
        body = client.report(comparison, report_format)
    if is_opened and output is None:
        output = Path(tempfile.mkdtemp(prefix="kotrain-"), "report.html")  # mkdtemp: readable by this user only
    if output is None:
        sys.stdout.buffer.write(body)
        return
    write(output, body)
    note(f"{output}: {len(body):,} bytes")
    if is_opened:
        _open(output)


def _open(page: Path) -> None:
    """Open a page in a graphical browser. Text browsers in the terminal are not used."""
    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, DISPLAYS))
    with suppress(webbrowser.Error):
        if has_display and webbrowser.open(page.resolve().as_uri()):
            return
    note(f"no browser available here: open {page} on a machine with one")


def write(file: Path, body: bytes) -> None:
    """Write a file. Raises BadParameter if that fails."""
    try:
        file.write_bytes(body)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None


def _format(text: str) -> ReportFormat:
    known: tuple[ReportFormat, ...] = get_args(ReportFormat)
    for report_format in known:
        if text == report_format:
            return report_format
    raise typer.BadParameter(f"unknown format '{text}'; choose {listed(known, word='or')}")
