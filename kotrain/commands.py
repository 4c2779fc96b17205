"""The command line on top of the SDK. Results go to standard output, messages and errors to standard error."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kotrain import (
    code_commands,
    comparison_commands,
    dataset_commands,
    edits,
    job_commands,
    request_body,
    study_commands,
)
from kotrain.errors import ApiError, KotrainError, NotRunning, WaitTimeout
from kotrain.output import Json, complain, note, say
from kotrain.plugins import Extensible
from service.specs.text import unknown_name

if TYPE_CHECKING:
    from service.specs.bodies import CatalogEntry, LibraryEntry, ModelLibraryEntry

app = typer.Typer(
    cls=Extensible,
    help="Train neural networks as a service and compare optimizers with statistical tests.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(job_commands.app)
app.add_typer(dataset_commands.app, name="data")
app.add_typer(code_commands.app, name="code")
app.add_typer(comparison_commands.app, name="comparison")
app.add_typer(study_commands.app, name="study")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(version_of("kotrain"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train neural networks as a service and compare optimizers with statistical tests."""


JobId = Annotated[str, typer.Argument(metavar="ID", help="Job id.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY:VALUE", help="Tag; repeatable.")]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; expected errors become lines on standard error."""
    try:
        line = sys.argv[1:] if arguments is None else arguments
        status: int = app(line or ["--help"], prog_name="kotrain", standalone_mode=False) or 0
        if status == 128 + signal.SIGINT:  # after Ctrl-C
            note("kotrain: interrupted")
        return status
    except typer.TyperException as error:
        complain(error.format_message())
        return error.exit_code
    except ApiError as error:
        complain(*error.lines)
    except KotrainError as error:
        complain(str(error))
    return 1


# --- comparisons -----------------------------------------------------------------------------------------------------


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Data set of the runs.")],
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model of the runs; omit it only with --by model.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric to compare, measured at the last step. Default: test_accuracy.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Spec field to group the runs by. Default: optimizer.")] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Value to reach in the validation counterpart of the metric (val_accuracy for test_accuracy): also "
            "report the steps and seconds to reach it."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY:VALUE", help="Only runs with this tag; repeatable.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=VALUE",
            help="Only runs with this value in their spec, for example model.init_scale=0.1; repeatable.",
        ),
    ] = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="Only runs with this optimizer; repeatable.")] = None,
    user: Annotated[str | None, typer.Option(help="Only runs of this user.")] = None,
    archived: edits.Archived = False,
    as_json: Json = False,
) -> None:
    """Compare finished runs on a data set: differences with confidence intervals and p values."""
    from kotrain import tables
    from kotrain.client import Client

    query = {
        "metric": metric,
        "group_by": by,
        "target": target,
        "tag": [request_body.tag_filter(pair) for pair in tag or []],
        "where": [request_body.full_path(path) for path in where or []],
        "optimizer": optimizer or [],
        "user": user,
        "archived": archived or None,
    }
    with Client() as client:
        answer = client.compare(dataset, model, **query)
    if as_json:
        return say(answer)
    return tables.console().print(tables.comparison(answer))


@app.command()
def leaderboard(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Data set of the runs.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model of the runs.")],
    metric: Annotated[
        str | None, typer.Option(help="Metric to rank by, measured at the last step. Default: test_accuracy.")
    ] = None,
    archived: edits.Archived = False,
    as_json: Json = False,
) -> None:
    """Rank optimizers by the mean of a metric, separately for each training setting."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.leaderboard(dataset, model, metric, archived=archived)
    if as_json:
        return say(answer)
    if not answer.boards:
        return note("no finished runs")
    return tables.console().print(tables.leaderboard(answer))


app.command(name="report")(comparison_commands.report)  # also `comparison report`, the most used of its subcommands


@app.command()
def catalog(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Entry whose parameters to show, or library to list."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List data sets, models, optimizers and schedules; show the parameters of one."""
    from kotrain import catalog_tables, tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.catalog()
        library_name = (name or "").partition("/")[0]
        has_models = library_name in [library.name for library in answer.model_libraries]
        if has_models and library_name == name:
            models = client.models(library_name)
            return say(models) if as_json else tables.console().print(catalog_tables.models(models))
        if has_models and name:
            model = client.model(name)
            return say(model) if as_json else tables.console().print(catalog_tables.model(model))
        if name is not None and "/" in name:
            optimizer = client.optimizer(name)
            return say(optimizer) if as_json else tables.console().print(catalog_tables.optimizer(optimizer))
    if name is None:
        return say(answer) if as_json else tables.console().print(catalog_tables.catalog(answer))
    for library in answer.libraries:
        if library.name == name:
            return say(library) if as_json else tables.console().print(catalog_tables.library(library))
    entries: list[CatalogEntry] = [*answer.datasets, *answer.models, *answer.optimizers, *answer.schedules]
    matching = [entry for entry in entries if entry.name == name]
    libraries: list[LibraryEntry | ModelLibraryEntry] = [*answer.libraries, *answer.model_libraries]
    names = [*(entry.name for entry in entries), *(library.name for library in libraries)]
    if not matching:
        raise typer.BadParameter(unknown_name("name", name, names))
    if as_json:
        return say(matching[0])
    return tables.console().print(matching[0].title, catalog_tables.parameters(matching[0].params), sep="\n")


# --- this machine ----------------------------------------------------------------------------------------------------


@app.command()
def down(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the processes to stop.")] = 30.0,
    home_folder: Annotated[
        Path | None,
        typer.Option("--home", help="Home folder. Default: KOTRAIN_HOME or ~/.kotrain (root: /var/lib/kotrain)."),
    ] = None,
) -> None:
    """Stop the processes of `kotrain up` in the home folder."""
    from kotrain import home

    folder = home_folder or home.folder()
    process = home.owner(folder)
    if process is None:
        raise NotRunning(f"no stack is running from {folder}")
    with suppress(ProcessLookupError):  # it has been killed, and its servers are ending
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while home.owner(folder) == process:
        if time.monotonic() > deadline:
            raise WaitTimeout(f"process {process} has not stopped after {timeout:g} s")
        time.sleep(0.05)
    note("stopped")


@app.command(name="demo")
def run_demo(
    epochs: Annotated[int, typer.Option(min=1, help="Epochs per run.")] = 30,
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Number of seeds of the final runs.")] = 5,
    tuning_seeds: Annotated[int, typer.Option(min=1, max=100, help="Number of seeds per tuning trial.")] = 5,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write the HTML report of the comparison to this file."),
    ] = None,
) -> int:
    """Compare the KO optimizer with Adam and SGD on real data, using temporary servers. Takes a few minutes.

    With the default epochs and seeds, results are checked against the reference table in docs/ko.md.
    """
    from kotrain import demo

    return demo.main(epochs, seeds, tuning_seeds, report)


@app.command()
def version() -> None:
    """Print the version."""
    print(version_of("kotrain"))
