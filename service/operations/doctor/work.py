"""Checks of the work: workers that live or were lost, jobs that do not move on, checkpoints without their files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row, text

from service.datasets import layouts
from service.operations.doctor.findings import Finding, Site, error, ok, spell, warning
from service.specs.catalog.datasets import DATASETS, is_own
from service.specs.training import ENGINE_VERSION
from service.storage.files import Store

LOST_DAYS = 7
"""Workers that were lost earlier are history."""
WAITING_SECONDS = 60.0
"""A job that waits for so long although a slot is idle was forgotten: maintenance looks every few seconds."""
MOST_CHECKPOINTS = 1000

WORKERS = text(
    """
    SELECT id, host, slots, devices, torch,
           extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds,
           clock_timestamp() - greatest(heartbeat_at, pg_postmaster_start_time()) <= make_interval(secs => :lease)
               AS is_alive,
           (SELECT count(*) FROM jobs WHERE status = 'running' AND worker_id = workers.id) AS running
    FROM workers
    WHERE stopped_at IS NULL AND clock_timestamp() - heartbeat_at < make_interval(days => :days)
    ORDER BY host, started_at
    """
)


def _workers(site: Site) -> list[Row[Any]]:
    with site.connection() as connection:
        lease = {"lease": site.settings.lease_seconds, "days": LOST_DAYS}
        return list(connection.execute(WORKERS, lease))


def _has_cuda(worker: Row[Any]) -> bool:
    return any(device.get("kind") == "cuda" for device in worker.devices)


def workers(site: Site) -> Iterator[Finding]:
    """Who lives, who was lost, and whether they train alike."""
    found = _workers(site)
    alive = [worker for worker in found if worker.is_alive]
    hosts = {worker.host for worker in alive}
    if not alive:
        yield error(
            "no worker gives a sign of life: jobs are accepted and none runs",
            f"see {site.home / 'logs' / 'worker.log'}" if site.is_embedded else "start one with `kotrain worker`",
        )
    for worker in found:
        if not worker.is_alive and worker.host not in hosts:  # one that was started again has its successor
            yield warning(
                f"the worker on {worker.host} was lost {spell(worker.silent_seconds)} ago without signing off",
                f"start it again if {worker.host} is to train; its jobs have gone back to the queue",
            )
    for host in sorted(hosts):
        if (count := sum(worker.host == host for worker in alive)) > 1:
            yield warning(f"{count} workers live on {host} and share its devices", "run one worker per host")
    versions = sorted({worker.torch for worker in alive if worker.torch})
    if len(versions) > 1:
        yield warning(
            f"workers train with torch {' and '.join(versions)}: their runs are not compared with each other",
            "install one version on all of them",
        )
    for worker in alive:
        gpus = sum(device.get("kind") == "cuda" for device in worker.devices)
        what = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "no GPU"
        yield ok(f"{worker.host}: {worker.running} of {worker.slots} slots busy, {what}, torch {worker.torch}")


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
    """Jobs that run without an owner, and jobs that wait for what does not come."""
    with site.connection() as connection:
        running = list(connection.execute(STALE))
        waiting = list(connection.execute(WAITING))
        counts = connection.execute(COUNTS).one()
    alive = [worker for worker in _workers(site) if worker.is_alive]
    yield from _orphans(site, running)
    yield from _waiting_in_vain(site, waiting, alive)
    yield from _forgotten(waiting, alive)
    yield ok(f"{counts.running} running, {counts.queued} queued")


def _orphans(site: Site, running: list[Row[Any]]) -> Iterator[Finding]:
    """A lease ran out and maintenance, which any worker does, has not taken the job back."""
    patience = site.settings.lease_seconds + 2 * site.settings.maintenance_seconds
    silent = [job for job in running if job.silent_seconds is None or job.silent_seconds > patience]
    if silent:
        longest = max(job.silent_seconds or 0 for job in silent)
        yield error(
            f"{_jobs(len(silent))} without a sign of life for up to {spell(longest)}, such as {silent[0].id}",
            "start a worker: any one takes back the jobs of lost ones",
        )


def _waiting_in_vain(site: Site, waiting: list[Row[Any]], alive: list[Row[Any]]) -> Iterator[Finding]:
    newer = [group for group in waiting if group.engine_version > ENGINE_VERSION]
    if newer:
        yield warning(
            f"{_jobs(_sum(newer), 'wait')} for engine {newer[0].engine_version}, and this kotrain has {ENGINE_VERSION}",
            "install the newer version on the workers too",
        )
    gpu = [group for group in waiting if group.needs_cuda]
    if gpu and not any(map(_has_cuda, alive)):
        yield warning(
            f"{_jobs(_sum(gpu), 'wait')} for a GPU, and no worker that lives has one",
            "start a worker on a machine with a GPU, or cancel them",
        )
    names = {group.dataset for group in waiting}
    unknown = {name for name in names if name not in DATASETS and not is_own(name)}
    for name in sorted(unknown):
        yield warning(f"a job waits that names the data set '{name}', which this version does not know")
    for name in sorted(names - unknown):
        if not layouts.is_present(name, site.settings.data):
            yield warning(f"a job waits for the data set '{name}', which is not here", layouts.remedy(name))


def _forgotten(waiting: list[Row[Any]], alive: list[Row[Any]]) -> Iterator[Finding]:
    for has_cuda in (False, True):
        idle = [worker for worker in alive if worker.running < worker.slots and _has_cuda(worker) == has_cuda]
        runnable = [
            group
            for group in waiting
            if group.engine_version <= ENGINE_VERSION and (has_cuda or not group.needs_cuda)
            if group.seconds > WAITING_SECONDS
        ]
        if idle and runnable:
            longest = spell(max(group.seconds for group in runnable))
            yield error(
                f"a job waits for {longest} although {idle[0].host} has idle slots",
                "look at that worker's log, and restart it",
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
    FROM checkpoints JOIN jobs ON jobs.id = job_id ORDER BY is_needed DESC, checkpoints.created_at DESC LIMIT :most
    """
)


def checkpoints(site: Site) -> Iterator[Finding]:
    """Rows whose file is not there, or not as long as it says."""
    store = Store(site.settings.files or str(site.home / "files"), site.home / "scratch")
    with site.connection() as connection:
        rows = list(connection.execute(CHECKPOINTS, {"most": MOST_CHECKPOINTS}))
        there = dict(store.names()) if rows else {}
        bad = [row for row in rows if there.get(row.file) != row.size_bytes]
        if bad:  # a job that goes on replaces its checkpoints
            still = {row.file for row in connection.execute(CHECKPOINTS, {"most": MOST_CHECKPOINTS})}
            bad = [row for row in bad if row.file in still]
    missing = [row for row in bad if row.file not in there]
    for what, group in (("is missing", missing), ("has another size", [row for row in bad if row not in missing])):
        if group:
            needed = sum(row.is_needed for row in group)
            yield (error if needed else warning)(
                f"the file of {len(group)} of {len(rows)} checkpoints {what} in {store.url}, such as {group[0].file}"
                + (f"; {needed} are of jobs that are to go on" if needed else ""),
                "give all machines the same KOTRAIN_FILES; a job that misses its file goes on from an earlier one",
            )
    if not bad:
        yield ok(f"{len(rows)}, with their files" if rows else "none")
