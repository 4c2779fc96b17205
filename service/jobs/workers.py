"""Workers: their state, devices and running jobs."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import ColumnElement, and_, case, exists, func, select
from sqlalchemy.orm import Session

from service.config import settings
from service.jobs.heartbeats import silence
from service.jobs.schemas import OPTIMIZER_LABEL
from service.specs.bodies import Output
from service.specs.optimizer_family import optimizer_family
from service.specs.states import JobStatus
from service.storage.database import NOW, transaction
from service.storage.tables import Job, User, Worker

REMEMBERED = timedelta(days=1)
"""How long a worker is listed after its last heartbeat."""


class WorkerStatus(StrEnum):
    """State of a worker."""

    UP = "up"
    STOPPED = "stopped"
    LOST = "lost"


class RunningJob(Output):
    """A running job and its progress, in optimizer steps."""

    job: UUID
    user: str
    dataset: str
    model: str
    optimizer: str
    optimizer_label: str = Field(description=OPTIMIZER_LABEL)
    step: int
    total_steps: int | None
    started_at: datetime | None


class WorkerView(Output):
    """A worker process. Each host runs one, which owns the host's devices."""

    id: str
    host: str
    status: WorkerStatus = Field(description="`lost`: its heartbeats stopped without a shutdown.")
    slots: int = Field(description="Number of jobs that it runs at a time.")
    devices: list[dict[str, Any]] = Field(description="Each with `kind` (`cuda` or `cpu`), `name` and `memory_bytes`.")
    torch: str | None
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    running: list[RunningJob]


class Workers(Output):
    """Workers with a heartbeat in the last 24 hours, newest first."""

    workers: list[WorkerView]


def is_up(lease_seconds: float | None = None) -> ColumnElement[bool]:
    """Whether a worker has not stopped and sent a heartbeat within a lease. Default: the lease of the settings.

    Downtime of the database does not count, as for its jobs.
    """
    lease = timedelta(seconds=settings().lease_seconds if lease_seconds is None else lease_seconds)
    return and_(Worker.stopped_at.is_(None), silence(Worker.heartbeat_at) <= lease)


def is_this_host_up() -> bool:
    """Whether a worker on this host is up: the health check of its container."""
    with transaction() as session:
        return session.scalar(select(exists().where(Worker.host == socket.gethostname(), is_up()))) is True


def has_cuda(devices: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of a worker's devices is a GPU."""
    return any(device["kind"] == "cuda" for device in devices)


def workers(session: Session) -> Workers:
    """The workers of the last day, with their running jobs."""
    status = case((Worker.stopped_at.is_not(None), WorkerStatus.STOPPED), (is_up(), WorkerStatus.UP))
    query = (
        select(Worker, func.coalesce(status, WorkerStatus.LOST).label("status"))
        .where(NOW - Worker.heartbeat_at <= REMEMBERED)
        .order_by(Worker.started_at.desc(), Worker.id)
    )
    rows = session.execute(query).all()
    jobs = _running(session, [worker.id for worker, _ in rows])
    columns = WorkerView.model_fields.keys() - {"status", "running"}
    return Workers(
        workers=[
            WorkerView(
                status=WorkerStatus(status),
                running=jobs.get(worker.id, []),
                **{name: getattr(worker, name) for name in columns},
            )
            for worker, status in rows
        ]
    )


def _running(session: Session, workers: Sequence[str]) -> dict[str, list[RunningJob]]:
    """The running jobs of each worker, oldest first."""
    columns = (Job.dataset, Job.model, Job.optimizer, Job.step, Job.total_steps, Job.started_at)
    rows = session.execute(
        select(
            Job.worker_id, Job.id.label("job"), User.name.label("user"), Job.spec["optimizer"].label("choice"), *columns
        )
        .join(User, User.id == Job.user_id)
        .where(Job.status == JobStatus.RUNNING, Job.worker_id.in_(workers))
        .order_by(Job.started_at, Job.id)
    )
    jobs: dict[str, list[RunningJob]] = {}
    for row in rows:
        job = RunningJob.model_validate({**row._mapping, "optimizer_label": optimizer_family(row.choice)})
        jobs.setdefault(str(row.worker_id), []).append(job)
    return jobs
