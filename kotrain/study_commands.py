"""`kotrain study`: run a predefined study on the service and save its reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

import typer

from kotrain.comparison_commands import write
from kotrain.output import PlanOnly, note, noting, say
from kotrain.studies import STUDIES, Budget, Study
from service.specs.formats import ReportFormat
from service.specs.states import ComparisonStatus
from service.specs.text import unknown_name

app = typer.Typer(help="List and run predefined studies of KO and other optimizers.")

REPORTS: Mapping[ReportFormat, str] = {
    "html": "report.html",
    "csv": "report.csv",
    "latex": "report.tex",
    "json": "answer.json",
}
"""Report format -> file name."""
BudgetOption = Annotated[
    str, typer.Option(help="small: takes minutes on two cores; full: uses all available data sets and needs a GPU.")
]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study; see `kotrain study list`.")]


@app.command(name="list")
def list_() -> None:
    """List the predefined studies."""
    from kotrain import tables

    table = tables.plain("study", "question")
    for study in STUDIES.values():
        table.add_row(study.name, study.title)
    tables.console().print(table)


@app.command()
def run(
    name: StudyName,
    budget: BudgetOption = "small",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the reports.")] = Path("studies"),
    dry_run: PlanOnly = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train all runs again instead of reusing finished ones.")
    ] = False,
) -> int:
    """Run a study, wait for it, write its reports and print its verdict.

    Finished runs are reused, so an interrupted study continues where it stopped.
    """
    from kotrain import progress, tables
    from kotrain.client import Client

    study = _study(name)
    size = _budget(budget)
    folder = output / f"{study.name}-{size}"
    with Client() as client:
        present = [dataset.name for dataset in client.catalog().datasets if dataset.present]
        request = {**study.request(size, present), "reuse": not fresh}
        if dry_run:
            tables.console().print(tables.plan(client.start_comparison(request, dry_run=True)))
            return 0
        _make(folder)  # before the runs, so that an unwritable folder is reported at once
        started = client.start_comparison(request)
        jobs = started.progress
        note(f"comparison {started.id}: up to {jobs.jobs_at_most} jobs, {jobs.reused} of them already finished")
        with noting("the comparison continues; `kotrain comparison cancel ID` stops it"):
            answer = progress.follow(client, started)
        for format, file in REPORTS.items():
            write(folder / file, client.report(answer, format))
    tables.console().print(tables.verdict(answer))
    note(f"reports: {folder}/")
    return int(answer.status is not ComparisonStatus.SUCCEEDED)


@app.command()
def show(
    name: StudyName,
    budget: BudgetOption = "small",
) -> None:
    """Print the request that `study run` would send, with all defaults, for the available data sets."""
    from kotrain.client import Client

    study, size = _study(name), _budget(budget)
    with Client() as client:
        present = [dataset.name for dataset in client.catalog().datasets if dataset.present]
    say(study.validated(size, present))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder}: {error.strerror}") from None


def _study(name: str) -> Study:
    if name not in STUDIES:
        raise typer.BadParameter(unknown_name("study", name, STUDIES))
    return STUDIES[name]


def _budget(text: str) -> Budget:
    for known in get_args(Budget):
        if text == known:
            return known  # type: ignore[no-any-return]  # get_args is untyped
    raise typer.BadParameter(f"unknown budget '{text}'; choose small or full")
