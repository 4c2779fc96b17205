"""The command line over the SDK. Answers go to standard output, everything else to standard error."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version as version_of
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from kotrain import asking, comparing, datasets, studying
from kotrain.errors import ApiError, KotrainError, NotRunning, WaitTimeout
from kotrain.output import Json, complain, note, say
from kotrain.plugins import Extensible
from service.specs.states import JobStatus

app = typer.Typer(
    cls=Extensible,
    help="Train neural networks as a service, and compare optimizers honestly.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(datasets.app, name="data")
app.add_typer(comparing.app, name="comparison")
app.add_typer(studying.app, name="study")

INTERRUPTED = 130
"""The exit status that typer gives to Ctrl-C."""

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a job.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="May be repeated.")]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what goes wrong becomes a line on standard error and the exit status."""
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        status: int = app(typed or ["--help"], prog_name="kotrain", standalone_mode=False) or 0
        if status == INTERRUPTED:
            note("kotrain: interrupted")
        return status
    except typer.TyperException as error:
        complain(error.format_message())
        return error.exit_code
    except ApiError as error:
        lines = [": ".join(filter(None, (field.pointer, field.detail))) for field in error.fields]
        told = all(field.detail in error.detail for field in error.fields)  # the fields are all there is to it
        complain(*(lines if lines and told else [error.detail, *lines]))
    except KotrainError as error:
        complain(str(error))
    return 1


# --- jobs ------------------------------------------------------------------------------------------------------------


@app.command()
def submit(
    what: Annotated[list[str], typer.Argument(metavar="DATASET MODEL OPTIMIZER | FILE.json", show_default=False)],
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training records.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of epochs.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds of training, instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Records per step.")] = None,
    seed: Annotated[int | None, typer.Option(help="The (first) seed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many jobs, each with the next seed.")] = 1,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUE", help="Any other field, such as optimizer.gamma=0.1 or schedule=cosine."),
    ] = None,
    tag: Tags = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; exit status 1 where it failed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it, and print what it would become.")] = False,
) -> int:
    """Submit training runs and print their ids.

    Such as: kotrain submit digits mlp ko --lr 0.001 --epochs 30 --param optimizer.collision=hard --seeds 5 --wait
    """
    from kotrain import progress, tables
    from kotrain.client import Client

    amounts = {"epochs": epochs, "steps": steps, "seconds": seconds}
    budget = {name: value for name, value in amounts.items() if value is not None}
    fields = {"batch_size": batch_size, "seed": seed, "budget": budget or None}
    body = asking.body(what, fields, param or [], tag or [])
    if lr is not None:
        asking.put(body, "optimizer.lr", lr)
    with Client() as client:
        if dry_run:
            say(client.submit(body, dry_run=True))
            return 0
        first = body.get("seed", 0)
        bodies = [body] if seeds == 1 else [{**body, "seed": first + number} for number in range(seeds)]
        jobs = []
        for one in bodies:
            jobs.append(client.submit(one))
            print(jobs[-1].id, flush=True)
        if not wait:
            return 0
        ended = progress.wait_for_jobs(client, jobs)
    tables.console(stderr=True).print(tables.jobs(ended))
    for job in ended:
        if job.message and job.status is JobStatus.FAILED:
            complain(f"{job.id}: {job.message}")
    return int(any(job.status is not JobStatus.SUCCEEDED for job in ended))


@app.command()
def jobs(
    status: Annotated[JobStatus | None, typer.Option()] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    optimizer: Annotated[str | None, typer.Option()] = None,
    user: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY=VALUE")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found = client.list(
            status=status,
            dataset=dataset,
            model=model,
            optimizer=optimizer,
            user=user,
            tag=tag and tag.replace("=", ":", 1),
            page_size=min(limit, 100),
        )
        shown = list(islice(found, limit))
    if as_json:
        print("[" + ",\n".join(job.model_dump_json() for job in shown) + "]")
    elif shown:
        tables.console().print(tables.jobs(shown))
    else:
        note("no jobs")


@app.command()
def show(job: JobId, as_json: Json = False) -> None:
    """Show a job, and what happened to it."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found, happened = client.get(job), client.history(job)
    if as_json:
        say(found)
        return
    tables.console().print(tables.job(found), "", tables.history(happened))


@app.command()
def cancel(job: JobId) -> None:
    """Cancel a job."""
    from kotrain.client import Client

    with Client() as client:
        found = client.cancel(job)
    print(f"{found.id} {found.status if found.status.is_final else 'stops as soon as it can'}")


@app.command()
def retry(job: JobId) -> None:
    """Run a failed or cancelled job again, and print the new job's id."""
    from kotrain.client import Client

    with Client() as client:
        print(client.retry(job).id)


@app.command()
def metrics(
    job: JobId,
    name: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    max_points: Annotated[int | None, typer.Option(min=4, help="Thin each curve out to so many points.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a job measured."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found = client.metrics(job, name, max_points)
    if as_json:
        say(found)
    elif found.metrics:
        tables.console().print(tables.curves(found.metrics))
    else:
        note("no points: none measured yet, or removed by `kotrain gc`")


# --- what they say ---------------------------------------------------------------------------------------------------


@app.command()
def compare(
    dataset: str,
    model: Annotated[str | None, typer.Argument()] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of the last step; test_accuracy if absent.")] = None,
    by: Annotated[str | None, typer.Option(help="What to compare; optimizer if absent.")] = None,
    target: Annotated[float | None, typer.Option(help="Value of the validation metric to reach.")] = None,
    tag: Tags = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUE", help="Only runs with this in their spec, such as model.init_scale=0.1."),
    ] = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Say which optimizer is better on a data set, by how much, and how sure one can be."""
    from kotrain import tables
    from kotrain.client import Client

    query = {
        "metric": metric,
        "group_by": by,
        "target": target,
        "tag": [one.replace("=", ":", 1) for one in tag or []],
        "where": [asking.full_path(one) for one in where or []],
        "optimizer": optimizer or [],
    }
    with Client() as client:
        answer = client.compare(dataset, model, **query)
    if as_json:
        return say(answer)
    return tables.console().print(tables.comparison(answer))


@app.command()
def leaderboard(
    dataset: str,
    model: str,
    metric: Annotated[str | None, typer.Option(help="Metric of the last step; test_accuracy if absent.")] = None,
    as_json: Json = False,
) -> None:
    """List optimizers by mean, in each setting that they were run in."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found = client.leaderboard(dataset, model, metric)
    if as_json:
        return say(found)
    if not found.boards:
        return note("no finished runs")
    return tables.console().print(tables.leaderboard(found))


app.command(name="report")(comparing.report)  # what people ask for most, without the word before it


@app.command()
def catalog(
    name: Annotated[str | None, typer.Argument(help="Show the parameters of this one.")] = None, as_json: Json = False
) -> None:
    """List data sets, models, optimizers and schedules."""
    from kotrain import tables
    from kotrain.client import Client

    with Client() as client:
        found = client.catalog()
    if as_json:
        return say(found)
    if name is None:
        return tables.console().print(tables.catalog(found))
    entries = [*found.datasets, *found.models, *found.optimizers, *found.schedules]
    matching = [entry for entry in entries if entry.name == name]
    if not matching:
        raise typer.BadParameter(f"there is no '{name}' in the catalog; `kotrain catalog` lists all names")
    return tables.console().print(matching[0].title, tables.parameters(matching[0]), sep="\n")


# --- this machine ----------------------------------------------------------------------------------------------------


@app.command()
def down(timeout: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 30.0) -> None:
    """Stop the `kotrain up` of this home."""
    from kotrain import home

    place = home.folder()
    process = home.owner(place)
    if process is None:
        raise NotRunning(f"nothing runs from {place}")
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while home.owner(place) == process:
        if time.monotonic() > deadline:
            raise WaitTimeout(f"process {process} has not ended after {timeout:g} s")
        time.sleep(0.05)
    note("stopped")


@app.command(name="demo")
def run_demo(
    epochs: Annotated[int, typer.Option(min=1, help="The reference table is for 30.")] = 30,
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Reported; the reference table is for 5.")] = 5,
    tuning_seeds: Annotated[int, typer.Option(min=1, max=100, help="To choose a learning rate with.")] = 5,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write the comparison's HTML report here.")
    ] = None,
) -> int:
    """Compare KO with Adam and SGD on real data: a whole stack for some minutes, and nothing left behind."""
    from kotrain import demo

    return demo.main(epochs, seeds, tuning_seeds, report)


@app.command()
def version() -> None:
    """Print the version."""
    print(version_of("kotrain"))
