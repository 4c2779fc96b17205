"""Checks of workers, jobs and checkpoints: lost workers, stuck jobs, missing checkpoint files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Double, Row, cast, extract, func, select, text

from service.datasets import layouts
from service.jobs.workers import has_cuda, is_up
from service.operations.doctor.findings import Finding, Site, error, ok, warning
from service.specs.catalog.datasets import DATASETS, is_own
from service.specs.engine import ENGINE_VERSION
from service.specs.quantities import duration
from service.specs.states import JobStatus
from service.specs.text import agreeing, counted
from service.storage.database import NOW
from service.storage.files import Store
from service.storage.tables import Job, Worker

LOST_DAYS = 7
"""Workers lost earlier are not reported."""
ALARM_DAYS = 1
"""A worker lost later is an error, a worker lost earlier a warning: perhaps it is not to return."""
WAITING_SECONDS = 60.0
"""A job queued for this long despite an idle slot is stuck: maintenance checks every few seconds."""
MAX_CHECKPOINTS = 1000


def _workers(site: Site) -> list[Row[Any]]:
    """Workers with a recent heartbeat that have not stopped, with the number of their running jobs."""
    running = select(func.count()).where(Job.status == JobStatus.RUNNING, Job.worker_id == Worker.id).scalar_subquery()
    silent_seconds = cast(extract("epoch", NOW - Worker.heartbeat_at), Double)
    query = (
        select(
            *(Worker.host, Worker.slots, Worker.devices, Worker.torch),
            silent_seconds.label("silent_seconds"),
            is_up(site.settings.lease_seconds).label("is_up"),
            running.label("running"),
        )
        .where(Worker.stopped_at.is_(None), NOW - Worker.heartbeat_at < timedelta(days=LOST_DAYS))
        .order_by(Worker.host, Worker.started_at)
    )
    with site.connection() as connection:
        return list(connection.execute(query))


def workers(site: Site) -> Iterator[Finding]:
    """Running and lost workers, and differences between them."""
    recent = _workers(site)
    up = [worker for worker in recent if worker.is_up]
    hosts = {worker.host for worker in up}
    if not up:
        yield error(
            "no worker is running: jobs stay queued",
            f"see {site.home / 'logs' / 'worker.log'}" if site.is_embedded else "start one with `kotrain worker`",
        )
    for worker in recent:
        if not worker.is_up and worker.host not in hosts:  # else it was restarted
            is_recent = worker.silent_seconds < ALARM_DAYS * 86_400
            yield (error if is_recent else warning)(
                f"the worker on {worker.host} disappeared {duration(worker.silent_seconds)} ago without shutting down",
                f"restart it if {worker.host} should run jobs; its jobs have been requeued",
            )
    for host in sorted(hosts):
        if (count := sum(worker.host == host for worker in up)) > 1:
            yield warning(f"{count} workers run on {host} and share its devices", "run one worker per host")
    versions = sorted({worker.torch for worker in up if worker.torch})
    if len(versions) > 1:
        yield warning(
            f"workers use different versions of torch ({', '.join(versions)}): their runs are not comparable",
            "install the same version on all workers",
        )
    for worker in up:
        gpus = sum(device.get("kind") == "cuda" for device in worker.devices)
        devices = counted(gpus, "GPU") if gpus else "no GPU"
        yield ok(
            f"{worker.host}: {worker.running} of {counted(worker.slots, 'slot')} busy, {devices}, torch {worker.torch}"
        )


# --- jobs ------------------------------------------------------------------------------------------------------------

STALE = text(
    """
    SELECT id, extract(epoch FROM clock_timestamp() - greatest(heartbeat_at, pg_postmaster_start_time()))::float8
               AS silent_seconds
    FROM jobs WHERE status = 'running' ORDER BY heartbeat_at NULLS FIRST LIMIT 1000
    """
)
WAITING = text(
    """
    SELECT dataset, needs_cuda, engine_version, count(*) AS jobs,
           max(extract(epoch FROM clock_timestamp() - available_at))::float8 AS seconds
    FROM jobs WHERE status = 'queued'
    GROUP BY dataset, needs_cuda, engine_version
    """
)
COUNTS = text(
    "SELECT count(*) FILTER (WHERE status = 'running') AS running, count(*) FILTER (WHERE status = 'queued') AS queued "
    "FROM jobs WHERE status IN ('running', 'queued')"
)


def jobs(site: Site) -> Iterator[Finding]:
    """Running jobs without a worker, and queued jobs that cannot start."""
    with site.connection() as connection:
        running = list(connection.execute(STALE))
        waiting = list(connection.execute(WAITING))
        counts = connection.execute(COUNTS).one()
    up = [worker for worker in _workers(site) if worker.is_up]
    yield from _stale(site, running)
    yield from _blocked(site, waiting, up)
    yield from _stuck(waiting, up)
    yield ok(f"{counts.running} running, {counts.queued} queued")


def _stale(site: Site, running: list[Row[Any]]) -> Iterator[Finding]:
    """Jobs whose lease expired, but which no worker's maintenance has requeued."""
    limit_seconds = site.settings.lease_seconds + 2 * site.settings.maintenance_seconds
    silent = [job for job in running if job.silent_seconds is None or job.silent_seconds > limit_seconds]
    if silent:
        longest = max(job.silent_seconds or 0 for job in silent)
        yield error(
            f"{_jobs(len(silent))} without a heartbeat for up to {duration(longest)}, for example {silent[0].id}",
            "start a worker: any worker requeues the jobs of lost ones",
        )


def _blocked(site: Site, waiting: list[Row[Any]], up: list[Row[Any]]) -> Iterator[Finding]:
    newer = [group for group in waiting if group.engine_version > ENGINE_VERSION]
    if newer:
        yield warning(
            f"{_jobs(_sum(newer), 'wait')} for engine {newer[0].engine_version}, this kotrain has {ENGINE_VERSION}",
            "upgrade the workers",
        )
    gpu = [group for group in waiting if group.needs_cuda]
    if gpu and not any(has_cuda(worker.devices) for worker in up):
        yield warning(
            f"{_jobs(_sum(gpu), 'wait')} for a GPU, but no running worker has one",
            "start a worker on a machine with a GPU, or cancel the jobs",
        )
    names = {group.dataset for group in waiting}
    unknown = {name for name in names if name not in DATASETS and not is_own(name)}
    for name in sorted(unknown):
        yield warning(f"queued jobs use the data set '{name}', which is unknown to this version")
    for name in sorted(names - unknown):
        if not layouts.is_present(name, site.settings.data):
            yield warning(f"queued jobs need the data set '{name}', which is not present", layouts.remedy(name))


def _stuck(waiting: list[Row[Any]], up: list[Row[Any]]) -> Iterator[Finding]:
    for on_gpu in (False, True):
        idle = [worker for worker in up if worker.running < worker.slots and has_cuda(worker.devices) == on_gpu]
        runnable = [
            group
            for group in waiting
            if group.engine_version <= ENGINE_VERSION and (on_gpu or not group.needs_cuda)
            if group.seconds > WAITING_SECONDS
        ]
        if idle and runnable:
            longest = duration(max(group.seconds for group in runnable))
            yield error(
                f"a job has been queued for {longest} although {idle[0].host} has idle slots",
                "see the log of that worker, and restart it",
            )
            return


def _sum(groups: list[Row[Any]]) -> int:
    return sum(group.jobs for group in groups)


def _jobs(count: int, verb: str = "run") -> str:
    return f"{count} job {verb}s" if count == 1 else f"{count} jobs {verb}"


# --- checkpoints -----------------------------------------------------------------------------------------------------

CHECKPOINTS = text(
    """
    SELECT file, size_bytes, jobs.status IN ('queued', 'running') AS is_needed
    FROM checkpoints JOIN jobs ON jobs.id = job_id
    ORDER BY is_needed DESC, checkpoints.created_at DESC LIMIT :max_checkpoints
    """
)


def checkpoints(site: Site) -> Iterator[Finding]:
    """Checkpoints whose file is missing or has the wrong size."""
    store = Store(site.settings.files or str(site.home / "files"), site.home / "scratch")
    with site.connection() as connection:
        rows = list(connection.execute(CHECKPOINTS, {"max_checkpoints": MAX_CHECKPOINTS}))
        sizes = dict(store.names()) if rows else {}
        bad = [row for row in rows if sizes.get(row.file) != row.size_bytes]
        if bad:  # running jobs replace their checkpoints
            current = {row.file for row in connection.execute(CHECKPOINTS, {"max_checkpoints": MAX_CHECKPOINTS})}
            bad = [row for row in bad if row.file in current]
    missing = [row for row in bad if row.file not in sizes]
    for state, group in (("missing", missing), ("of the wrong size", [row for row in bad if row not in missing])):
        if group:
            needed = sum(row.is_needed for row in group)
            are = agreeing(len(group), "is", "are")
            yield (error if needed else warning)(
                f"{len(group)} of {counted(len(rows), 'checkpoint file')} {are} {state} in {store.url}, for example "
                f"{group[0].file}" + (f"; unfinished jobs need {needed} of them" if needed else ""),
                "set the same KOTRAIN_FILES on all machines; affected jobs continue from an earlier checkpoint",
            )
    if not bad:
        yield ok(f"{len(rows)}, all files present" if rows else "none")
