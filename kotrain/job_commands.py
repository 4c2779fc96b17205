"""The commands for jobs: submit, wait, list, show, cancel, retry, metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kotrain import edits, request_body
from kotrain.errors import ApiError
from kotrain.output import Json, complain, note, noting, say, say_all
from service.specs.states import JobStatus
from service.specs.text import counted, listed

if TYPE_CHECKING:
    from kotrain.client import Client
    from service.jobs.schemas import JobView

app = typer.Typer()

JobId = Annotated[str, typer.Argument(metavar="ID", help="Job id, or its beginning or end.")]
ID_PARTS = typer.Argument(metavar="ID...", show_default=False, help="Job ids, or their beginnings or ends.")
JobIds = Annotated[list[str], ID_PARTS]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY:VALUE", help="Tag; repeatable.")]


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
    is_waited_for: Annotated[
        bool, typer.Option("--wait", help="Wait for all jobs; exit status 1 unless all succeed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate only: print the complete spec, with all defaults.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Submit training runs and print their ids; with --wait their results.

    Example: kotrain submit digits mlp ko --lr 0.001 --epochs 30 --param optimizer.collision=hard --seeds 5 --wait
    """
    from kotrain.client import Client

    amounts = {"epochs": epochs, "steps": steps, "seconds": seconds}
    budget = {name: value for name, value in amounts.items() if value is not None}
    fields = {"optimizer.lr": lr, "batch_size": batch_size, "seed": seed, "budget": budget or None}
    body = request_body.build(source, fields, param or [], tag or [])
    with Client() as client:
        if dry_run:
            say(client.submit(body, dry_run=True))
            return 0
        print_id = note if is_waited_for or as_json else _print_at_once
        submitted = list(_submit_seeds(client, body, seeds, print_id))
        if is_waited_for:
            return _wait(client, submitted, as_json)
    if as_json:
        say_all(submitted)
    return 0


@app.command()
def wait(
    job: JobIds,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most. Default: no limit.")] = None,
    as_json: Json = False,
) -> int:
    """Wait until jobs have ended and print their results; exit status 1 unless all succeed."""
    from kotrain.client import Client

    with Client() as client:
        return _wait(client, [client.get(part) for part in job], as_json, timeout)


def _wait(client: Client, submitted: list[JobView], as_json: bool, timeout: float | None = None) -> int:
    """Wait for jobs and print their results: a table, or a line for each if the output is not a terminal."""
    from kotrain import progress, tables

    with noting("the jobs continue; `kotrain cancel ID` stops one"):
        ended = progress.wait_for_jobs(client, submitted, timeout)
    if as_json:
        say_all(ended)
    elif sys.stdout.isatty():
        tables.console().print(tables.jobs(ended))
    else:
        for job in ended:
            print(tables.result_line(job, client.url))
    for job in ended:
        if job.message and job.status is JobStatus.FAILED:
            complain(f"{job.id}: {job.message}")
    return int(any(job.status is not JobStatus.SUCCEEDED for job in ended))


def _print_at_once(line: str) -> None:
    print(line, flush=True)


def _submit_seeds(
    client: Client, body: dict[str, Any], seeds: int, print_id: Callable[[str], None]
) -> Iterator[JobView]:
    """Submit a spec with consecutive seeds, and print the id of each job."""
    first = body.get("seed", 0)
    if seeds > 1 and (isinstance(first, bool) or not isinstance(first, int)):
        raise typer.BadParameter("--seeds counts from `seed`, which has to be an integer")
    specs = [body] if seeds == 1 else [{**body, "seed": first + number} for number in range(seeds)]
    if seeds > 1:
        client.submit(specs[-1], dry_run=True)  # all are valid, or none is submitted
    for number, spec in enumerate(specs):
        with noting(f"submitted: {counted(number, 'job')}, and perhaps one more; `kotrain jobs` lists them"):
            job = client.submit(spec)
        with noting(f"job {job.id} was submitted"):
            print_id(str(job.id))
        yield job


@app.command()
def jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this data set.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs with this model.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Only jobs with this optimizer.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY:VALUE", help="Only jobs with this tag.")] = None,
    archived: edits.Archived = False,
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
            archived=archived,
            page_size=min(limit, 100),
        )
        found = list(islice(matches, limit))
    if as_json:
        say_all(found)
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
def cancel(
    job: Annotated[list[str] | None, ID_PARTS] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="KEY:VALUE", help="Cancel your queued and running jobs with this tag.")
    ] = None,
) -> int:
    """Cancel jobs. Exit status 1 if one of them has already ended or belongs to another user."""
    from kotrain.client import Client

    if bool(job) == bool(tag):
        raise typer.BadParameter("give ID..., or --tag KEY:VALUE")
    with Client() as client:
        if tag:
            unfinished, tag = f"{JobStatus.QUEUED},{JobStatus.RUNNING}", request_body.tag_filter(tag)
            jobs = list(client.list(status=unfinished, user=client.me().user, tag=tag))
            if not jobs:
                note("no queued or running job of yours has this tag")
        else:
            jobs = _found(client, job or [])
        return _each(jobs, lambda view: _cancelled(client.cancel(view)))


def _cancelled(job: JobView) -> str:
    return f"{job.id} {job.status if job.status.is_final else 'is stopping'}"


@app.command()
def edit(
    job: JobIds,
    name: edits.Name = None,
    tag: edits.Tags = None,
    no_tags: edits.NoTags = False,
    note: edits.Note = None,
    archive: edits.Archive = None,
) -> int:
    """Rename, tag, annotate or archive your jobs. An empty name removes it."""
    from kotrain.client import Client

    wanted = edits.changes(name, tag, no_tags, note, archive)
    wanted |= {"name": None} if name == "" else {}
    with Client() as client:
        return _each(_found(client, job), lambda view: str(client.change(view, **wanted).id))


@app.command()
def retry(job: JobIds) -> int:
    """Submit failed or cancelled jobs again and print the ids of the new jobs."""
    from kotrain.client import Client

    with Client() as client:
        return _each(_found(client, job), lambda view: str(client.retry(view).id))


def _found(client: Client, parts: Iterable[str]) -> list[JobView]:
    """The jobs with these ids, before anything is done with the first."""
    return list({job.id: job for job in map(client.get, parts)}.values())


def _each(jobs: Iterable[JobView], act: Callable[[JobView], str]) -> int:
    """Print the line that `act` returns for each job; exit status 1 if it is refused for one of them."""
    status = 0
    for job in jobs:
        try:
            print(act(job), flush=True)
        except ApiError as refused:
            complain(str(refused))
            status = 1
    return status


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
