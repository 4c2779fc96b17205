"""Submit jobs: check requests against data and workers, store them as queued, and wake workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from service.code import versions
from service.config import settings
from service.datasets import layouts
from service.datasets.locks import hold_dataset
from service.errors import FieldError, Invalid
from service.jobs import fitting, queue
from service.jobs.lookup import get
from service.jobs.requests import JobRequest
from service.jobs.schemas import FittedModel
from service.jobs.workers import has_cuda
from service.specs.catalog.datasets import is_own
from service.specs.engine import ENGINE_VERSION
from service.specs.states import JobStatus
from service.specs.text import counted
from service.specs.training import TrainSpec
from service.storage.database import call_after_commit
from service.storage.tables import Job, JobEvent, User, Worker

MAX_SIDE = 2**30
"""Above the side of any image: a model with a larger `batch_side` takes single records at no size."""
MAX_MESSAGES = 64
"""Messages per submission of many jobs: a slot that is awake continues until the queue is empty."""


def check(session: Session, request: TrainSpec) -> None:
    """Raise Invalid, with the fields, for a request that is known to fail before it is queued."""
    errors = []
    folder = settings().data
    dataset = request.dataset
    if is_own(dataset.name):
        hold_dataset(session, dataset.name)
    versions.hold(session, versions.stored_names_in(request.optimizer.model_dump()), "/optimizer")
    if not layouts.is_present(dataset.name, folder):
        errors.append(FieldError("/dataset", layouts.absence(dataset.name, folder)))
    else:
        records = layouts.train_records(dataset, folder)
        shape = layouts.image_shape(dataset, folder)
        side = max(shape[1:]) if shape else 0
        if records is not None and shape and (problem := _lone_record(request, records, side)):
            errors.append(FieldError("/batch_size", problem))
        if request.model.declared is not None:
            errors += fitting.problems(request, shape, layouts.classes(dataset, folder), _devices(session))
        if records is not None and request.batch_size > records:
            errors.append(
                FieldError(
                    "/batch_size",
                    f"{request.batch_size} exceeds the {counted(records, 'training record')} of '{dataset.name}'; "
                    f"choose 1 to {records}",
                )
            )
    if request.needs_cuda and _only_cpu_workers(session):
        pointer = "/device" if request.device == "cuda" else "/precision"
        errors.append(FieldError(pointer, "no worker has a GPU; choose device cpu and precision fp32 or bf16"))
    if errors:
        raise Invalid("; ".join(error.detail for error in errors), tuple(errors))


def warnings(request: TrainSpec) -> list[str]:
    """Sentences on what is valid, but probably not intended. The run itself records them as notes."""
    steps = request.budget.steps_on(layouts.train_records(request.dataset, settings().data), request.batch_size)
    warning = request.cut_warmup(steps)
    return [f"{warning[0].upper()}{warning[1:]}."] if warning else []


def _lone_record(request: TrainSpec, records: int, side: int) -> str | None:
    """Why the model cannot train on a batch of a single record that the run reaches; None if there is none."""
    size, steps = request.batch_size, request.budget.steps
    is_last = records % size == 1 and (steps is None or steps * size >= records)
    if side > request.model.batch_side or not (size == 1 or is_last):
        return None
    which = "every batch has" if size == 1 else f"the last of {records:,} training records is"
    is_of_size = request.model.batch_side < MAX_SIDE
    why = f": it reduces an image of {side} x {side} pixels to one value per channel" if is_of_size else ""
    others = [size + change for change in (-1, 1) if 1 < size + change <= records and records % (size + change) != 1]
    return (
        f"with batches of {size}, {which} a single record, which the batch normalization of {request.model.name} "
        f"cannot train on{why}; choose "
        f"{' or '.join(map(str, others)) or 'another batch size'}"
    )


def fitted(request: TrainSpec) -> FittedModel | None:
    """How the model of a library is fitted to the data; None for a built-in model."""
    folder = settings().data
    return fitting.fitted(
        request, layouts.image_shape(request.dataset, folder), layouts.classes(request.dataset, folder)
    )


def _devices(session: Session) -> Sequence[list[Any]]:
    """The devices of each registered worker; one that restarts at the moment will be back."""
    return session.scalars(select(Worker.devices)).all()


def _only_cpu_workers(session: Session) -> bool:
    """Whether workers are registered and none of them has a GPU. False if none is registered yet."""
    devices = _devices(session)
    return bool(devices) and not any(map(has_cuda, devices))


def submit(session: Session, user: User, request: JobRequest) -> Job:
    """Store a queued job; a worker is woken after the commit."""
    check(session, request)
    (job_id,) = submit_many(session, user, [request], is_direct=True)
    return get(session, job_id)


def submit_many(session: Session, user: User, requests: Sequence[JobRequest], *, is_direct: bool) -> list[UUID]:
    """Store checked jobs as queued, in two statements. `is_direct` is False for jobs of a comparison."""
    stamp = cache(lambda name: layouts.stamp(name, settings().data))
    return insert_rows(
        session,
        [
            {
                "user_id": user.id,
                "spec": request.train_spec.model_dump(mode="json"),
                "dataset": request.dataset.name,
                "model": request.model.name,
                "optimizer": request.optimizer.name,
                "needs_cuda": request.needs_cuda,
                "tags": request.tags,
                "priority": request.priority,
                "time_limit_seconds": request.time_limit_seconds,
                "max_failures": request.max_failures,
                "memory_limit_bytes": request.memory_limit_bytes,
                "engine_version": ENGINE_VERSION,
                "is_direct": is_direct,
                "data_stamp": stamp(request.dataset.name),
            }
            for request in requests
        ],
    )


def insert_rows(session: Session, rows: Sequence[dict[str, Any]]) -> list[UUID]:
    """Store queued jobs, each with its first event, and wake workers after the commit."""
    if not rows:
        return []
    ids = [uuid7() for _ in rows]
    queued = {"status": JobStatus.QUEUED, "seq": 1, "attempt": 0, "failures": 0, "cancel_requested": False, "step": 0}
    session.execute(insert(Job), [{"id": id_, **queued, **row} for id_, row in zip(ids, rows, strict=True)])
    events = [{"job_id": id_, "seq": 1, "attempt": 0, "status": JobStatus.QUEUED} for id_ in ids]
    session.execute(insert(JobEvent), events)
    queues = [queue.CUDA_WORKERS if row["needs_cuda"] else queue.ANY_WORKER for row in rows]
    for name in queues[:MAX_MESSAGES]:
        call_after_commit(session, partial(queue.wake, name))
    return ids
