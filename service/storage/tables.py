"""Tables. PostgreSQL is the single source of truth.

All ids are UUIDv7, which sort by age. All times are the database's (`clock_timestamp()`), never a host's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from service.specs.states import ComparisonStatus, JobStatus, Reason

NOW = text("clock_timestamp()")
XID = text("pg_current_xact_id()::text::bigint")


def _one_of(column: str, values: type[JobStatus] | type[Reason] | type[ComparisonStatus]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        str: Text,
        UUID: SqlUuid,
    }


class User(Base):
    """A user, who owns jobs and keys. Workers share their slots fairly between users."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    is_admin: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Admins may change what belongs to others, and create keys."""
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Base):
    """An API key of a user. Only its SHA-256 is stored; keys are random, so a slow hash would add no security."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class Worker(Base):
    """A worker process. Each host runs one, which owns the host's devices."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    slots: Mapped[int]
    devices: Mapped[list[Any]] = mapped_column(JSONB)
    """`[{"kind": "cuda", "name": ..., "memory_bytes": ...}]`"""
    torch: Mapped[str | None]
    """Version of torch, which affects results."""
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=NOW)
    stopped_at: Mapped[datetime | None]


class Job(Base):
    """A training run.

    `attempt` is the fence: it increases with every claim and guards every write of a worker. `failures` counts lost
    workers and child processes, up to `max_failures`. `seq` counts the job's events.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("status", JobStatus), name="jobs_status"),
        CheckConstraint(_one_of("reason", Reason), name="jobs_reason"),
        Index(
            "jobs_queued",
            "user_id",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("jobs_running", "user_id", postgresql_where=text("status = 'running'")),
        Index("jobs_status_finished", "status", "finished_at"),
        Index("jobs_setting", "dataset", "model", "optimizer"),
        Index("jobs_tags", "tags", postgresql_using="gin"),
        Index("jobs_fingerprint", "fingerprint"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    spec: Mapped[dict[str, Any]]
    dataset: Mapped[str]
    model: Mapped[str]
    optimizer: Mapped[str]
    needs_cuda: Mapped[bool]
    tags: Mapped[dict[str, Any]]
    name: Mapped[str | None]
    note: Mapped[str | None]
    archived_at: Mapped[datetime | None]
    """Since when its owner keeps it out of lists and boards; comparisons still use it."""
    priority: Mapped[int]
    time_limit_seconds: Mapped[float | None] = mapped_column(Double)
    max_failures: Mapped[int]
    memory_limit_bytes: Mapped[int | None] = mapped_column(BigInteger)
    engine_version: Mapped[int] = mapped_column(server_default="2")
    """Engine version of the code that stored the job; older engines must not train it."""
    is_direct: Mapped[bool] = mapped_column(default=True, server_default="true")
    """Submitted directly, so that the end of a comparison does not cancel it."""
    data_stamp: Mapped[str | None]
    """Identifies the data set's files at submission (`service.datasets.layouts.stamp`)."""
    fingerprint: Mapped[str] = mapped_column(Computed("kotrain_fingerprint(spec)", persisted=True))
    """Equal for specs that give equal results with the same data, engine, torch and kind of device."""
    setting: Mapped[str] = mapped_column(Computed("kotrain_setting(spec)", persisted=True))
    """The fingerprint without the seed and `evaluate_test`."""

    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED.value)
    reason: Mapped[str | None]
    message: Mapped[str | None]
    """For users: why it failed (the last lines of a traceback, or which worker was lost); while it runs, why its newest
    checkpoint is not stored."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    seq: Mapped[int] = mapped_column(BigInteger, default=0)
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"), unique=True)

    worker_id: Mapped[str | None]
    step: Mapped[int] = mapped_column(BigInteger, default=0)
    total_steps: Mapped[int | None] = mapped_column(BigInteger)
    environment: Mapped[dict[str, Any] | None]
    summary: Mapped[dict[str, Any] | None]

    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    available_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class JobEvent(Base):
    """An event of a job, written in the transaction of the change itself."""

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_xid", "xid", postgresql_where=text("xid IS NOT NULL")),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int]
    status: Mapped[str]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    step: Mapped[int | None] = mapped_column(BigInteger)
    """Step from which the attempt continues (0: the start); points beyond it are void."""
    xid: Mapped[int | None] = mapped_column(BigInteger, server_default=XID)
    """Id of the writing transaction, for `service.streams`; null for events of older versions or another server."""


class MetricName(Base):
    """The name of a metric."""

    __tablename__ = "metric_names"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class MetricChunk(Base):
    """Consecutive points of a metric of a job.

    Chunks are trimmed when a run continues from a checkpoint, and merged when the job ends. `wall_seconds` count from
    the start of the run, over all attempts. A point takes 22 bytes in chunks of 250 and 95 bytes in rows of one.
    """

    __tablename__ = "metric_chunks"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name_id: Mapped[int] = mapped_column(ForeignKey("metric_names.id"), primary_key=True)
    first_step: Mapped[int] = mapped_column(primary_key=True)
    steps: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    values: Mapped[list[float]] = mapped_column(ARRAY(Double))
    wall_seconds: Mapped[list[float]] = mapped_column(ARRAY(REAL))


class Checkpoint(Base):
    """A stored state of a running job, from which it can continue.

    The file is valid only through this row, which commits with the metrics up to its step.
    """

    __tablename__ = "checkpoints"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int]
    """The attempt that wrote it or may continue from it."""
    file: Mapped[str]
    """Name in the store (`service.storage.files`)."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    seconds: Mapped[float] = mapped_column(Double)
    """Wall-clock seconds of the run up to the checkpoint, over all attempts."""
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Compatibility(Base):
    """A single row: which versions of the code may use this schema."""

    __tablename__ = "compatibility"
    __table_args__ = (CheckConstraint("is_single", name="compatibility_single"),)

    is_single: Mapped[bool] = mapped_column(primary_key=True, default=True, server_default="true")
    oldest_code: Mapped[int]
    """Version of the oldest code that may use this schema: the number of its newest migration."""


class CodeVersion(Base):
    """A version of the code that a user has uploaded; it never changes."""

    __tablename__ = "code_versions"
    __table_args__ = (
        CheckConstraint("kind IN ('optimizer', 'model')", name="code_versions_kind"),
        Index("code_versions_name", "user_id", "name", "id"),
        Index("code_versions_unchecked", "id", postgresql_where=text("checks IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    """Its name without owner and version, which is also that of its Python module."""
    kind: Mapped[str]
    version: Mapped[str] = mapped_column(unique=True)
    """The full name, such as `ada/mine@3f2a9c71`."""
    sha256: Mapped[str]
    """Of the file that was uploaded."""
    file: Mapped[str]
    """Name of the file, for tracebacks."""
    source: Mapped[str]
    declaration: Mapped[dict[str, Any]]
    """`service.specs.catalog.declaration.Declaration`, as JSON."""
    checks: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Results of the conformance test (`service.code.schemas.Check`); null until it has run."""
    checking_since: Mapped[datetime | None]
    """When a worker began the test."""
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class Comparison(Base):
    """A comparison of optimizers: its plan, fixed before the first job, and its state."""

    __tablename__ = "comparisons"
    __table_args__ = (
        CheckConstraint(_one_of("status", ComparisonStatus), name="comparisons_status"),
        Index("comparisons_running", "id", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    tags: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Null: those of the plan."""
    note: Mapped[str | None]
    archived_at: Mapped[datetime | None]
    """Jobs that were archived with it have the same time."""
    plan: Mapped[dict[str, Any]]
    """`service.comparisons.design.plan.Plan`, as JSON."""
    status: Mapped[str] = mapped_column(default=ComparisonStatus.RUNNING.value)
    message: Mapped[str | None]
    """Error message for users."""
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class ComparisonEvent(Base):
    """A change of a comparison's status, written by a trigger in the transaction of the change itself."""

    __tablename__ = "comparison_events"
    __table_args__ = (
        Index("comparison_events_xid", "xid", postgresql_where=text("xid IS NOT NULL")),
        Index("comparison_events_comparison", "comparison_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id", ondelete="CASCADE"))
    status: Mapped[str]
    message: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    xid: Mapped[int | None] = mapped_column(BigInteger, server_default=XID)
    """Id of the writing transaction; null for events of another server."""


class ComparisonCell(Base):
    """A training run that a comparison needs, and its job. Comparisons may share jobs."""

    __tablename__ = "comparison_cells"
    __table_args__ = (Index("comparison_cells_job", "job_id"),)

    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    optimizer: Mapped[int] = mapped_column(primary_key=True)
    trial: Mapped[int] = mapped_column(primary_key=True)
    rung: Mapped[int] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    is_reused: Mapped[bool]
    """Whether the job existed before this comparison needed it."""


class IdempotencyKey(Base):
    """The stored response to a request with an idempotency key; kept for a day."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("user_id", "route", "key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    route: Mapped[str]
    key: Mapped[str]
    body_digest: Mapped[str]
    resource_id: Mapped[UUID]
    """The job or comparison that the request created."""
    answer: Mapped[str]
    """The response body."""
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
