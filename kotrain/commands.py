"""The command line on top of the SDK. Results go to standard output, messages and errors to standard error."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version as version_of
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kotrain import comparison_commands, dataset_commands, request_body, study_commands
from kotrain.errors import ApiError, KotrainError, NotRunning, WaitTimeout
from kotrain.output import Json, complain, note, noting, say
from kotrain.plugins import Extensible
from service.specs.states import JobStatus
from service.specs.text import listed

if TYPE_CHECKING:
    from kotrain.client import Client
    from service.jobs.schemas import JobView

app = typer.Typer(
    cls=Extensible,
    help="Train neural networks as a service and compare optimizers with statistical tests.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dataset_commands.app, name="data")
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
        lines = [": ".join(filter(None, (field.pointer, field.detail))) for field in error.fields]
        is_complete = all(field.detail in error.detail for field in error.fields)  # `detail` only repeats the fields
        complain(*(lines if lines and is_complete else [error.detail, *lines]))
    except KotrainError as error:
        complain(str(error))
    return 1


# --- jobs ------------------------------------------------------------------------------------------------------------


@app.command()
def submit(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET MODEL OPTIMIZER | FILE.json",
            show_default=False,
            help="Catalog names, or a JSON file with a complete spec; `-` reads standard input.",
        ),
    ],
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget in epochs.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimizer steps instead of epochs.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget in seconds of training instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Training records per optimizer step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, or the first seed if --seeds is given.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Number of jobs to submit, with consecutive seeds.")] = 1,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=VALUE",
            help="Any other field, for example optimizer.gamma=0.1 or schedule=cosine; repeatable.",
        ),
    ] = None,
    tag: Tags = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for all jobs; exit status 1 unless all succeed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate only: print the complete spec, with all defaults.")
    ] = False,
) -> int:
    """Submit training runs and print their ids.

    Example: kotrain submit digits mlp ko --lr 0.001 --epochs 30 --param optimizer.collision=hard --seeds 5 --wait
    """
    from kotrain import progress, tables
    from kotrain.client import Client

    amounts = {"epochs": epochs, "steps": steps, "seconds": seconds}
    budget = {name: value for name, value in amounts.items() if value is not None}
    fields = {"optimizer.lr": lr, "batch_size": batch_size, "seed": seed, "budget": budget or None}
    body = request_body.build(source, fields, param or [], tag or [])
    with Client() as client:
        if dry_run:
            say(client.submit(body, dry_run=True))
            return 0
        jobs = list(_submit_seeds(client, body, seeds))
        if not wait:
            return 0
        with noting("the jobs continue; `kotrain cancel ID` stops one"):
            jobs = progress.wait_for_jobs(client, jobs)
    tables.console(stderr=True).print(tables.jobs(jobs))
    for job in jobs:
        if job.message and job.status is JobStatus.FAILED:
            complain(f"{job.id}: {job.message}")
    return int(any(job.status is not JobStatus.SUCCEEDED for job in jobs))


def _submit_seeds(client: Client, body: dict[str, Any], seeds: int) -> Iterator[JobView]:
    """Submit a spec with consecutive seeds, and print the id of each job."""
    first = body.get("seed", 0)
    if seeds > 1 and (isinstance(first, bool) or not isinstance(first, int)):
        raise typer.BadParameter("--seeds counts from `seed`, which has to be an integer")
    specs = [body] if seeds == 1 else [{**body, "seed": first + number} for number in range(seeds)]
    if seeds > 1:
        client.submit(specs[-1], dry_run=True)  # all are valid, or none is submitted
    for number, spec in enumerate(specs):
        with noting(f"{number} jobs were submitted, and perhaps one more; `kotrain jobs` lists them"):
            job = client.submit(spec)
        with noting(f"job {job.id} was submitted"):
            print(job.id, flush=True)
        yield job


@app.command()
def jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this data set.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs with this model.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Only jobs with this optimizer.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY:VALUE", help="Only jobs with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to list.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        matches = client.list(
            status=status,
            dataset=dataset,
            model=model,
            optimizer=optimizer,
            user=user,
            tag=tag and request_body.tag_filter(tag),
            page_size=min(limit, 100),
        )
        found = list(islice(matches, limit))
    if as_json:
        print("[" + ",\n".join(job.model_dump_json() for job in found) + "]")
    elif found:
        tables.console().print(tables.jobs(found))
    else:
        note("no jobs")


@app.command()
def show(job: JobId, as_json: Json = False) -> None:
    """Show a job and its history."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        view, history = client.get(job), client.history(job)
    if as_json:
        say(view)
        return
    tables.console().print(tables.job(view), "", tables.history(history))


@app.command()
def cancel(job: JobId) -> None:
    """Cancel a job."""
    from kotrain.client import Client

    with Client() as client:
        view = client.cancel(job)
    print(f"{view.id} {view.status if view.status.is_final else 'is stopping'}")


@app.command()
def retry(job: JobId) -> None:
    """Submit a failed or cancelled job again and print the id of the new job."""
    from kotrain.client import Client

    with Client() as client:
        print(client.retry(job).id)


@app.command()
def metrics(
    job: JobId,
    name: Annotated[list[str] | None, typer.Option(help="Only this metric; repeatable.")] = None,
    max_points: Annotated[
        int | None, typer.Option(min=4, help="Downsample each curve to at most this many points.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the metrics of a job."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.metrics(job, name, max_points)
        others = client.metrics(job, max_points=4).metrics if name and not answer.metrics else {}
    if others:
        raise typer.BadParameter(
            f"the job has no metric {listed(name or [], 'or')}; it has {', '.join(sorted(others))}"
        )
    if as_json:
        say(answer)
    elif answer.metrics:
        tables.console().print(tables.curves(answer.metrics))
    else:
        note("no metric points: none recorded yet, or removed by `kotrain gc`")


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
    as_json: Json = False,
) -> None:
    """Rank optimizers by the mean of a metric, separately for each training setting."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.leaderboard(dataset, model, metric)
    if as_json:
        return say(answer)
    if not answer.boards:
        return note("no finished runs")
    return tables.console().print(tables.leaderboard(answer))


app.command(name="report")(comparison_commands.report)  # also `comparison report`, the most used of its subcommands


@app.command()
def catalog(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Entry of the catalog whose parameters to show.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List data sets, models, optimizers and schedules."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        answer = client.catalog()
    if as_json:
        return say(answer)
    if name is None:
        return tables.console().print(tables.catalog(answer))
    entries = [*answer.datasets, *answer.models, *answer.optimizers, *answer.schedules]
    matching = [entry for entry in entries if entry.name == name]
    if not matching:
        raise typer.BadParameter(f"'{name}' is not in the catalog; `kotrain catalog` lists all names")
    return tables.console().print(matching[0].title, tables.parameters(matching[0]), sep="\n")


# --- this machine ----------------------------------------------------------------------------------------------------


@app.command()
def down(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the processes to stop.")] = 30.0,
) -> None:
    """Stop the processes of `kotrain up` in the home folder.

    The home folder is KOTRAIN_HOME or ~/.kotrain (root: /var/lib/kotrain).
    """
    from kotrain import home

    folder = home.folder()
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
