"""Retention: removes expired data in small transactions, while the service runs.

Expired are checkpoints and metric points of jobs that ended long enough ago, files that no row refers to, and stored
responses to repeated requests. The job itself, its summary and its events are kept. Removal can be interrupted at any
moment: rows are deleted in a committed transaction before their files, and files left behind are removed by the next
run. Ages of jobs are measured by the database's clock.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ARRAY, TextClause, Uuid, bindparam, text
from sqlalchemy.exc import SQLAlchemyError

from service.config import settings
from service.specs.quantities import duration, size
from service.specs.states import JobStatus
from service.specs.text import counted
from service.storage.database import transaction
from service.storage.files import Store, store
from service.storage.idempotency import KEPT

BATCH_SECONDS = 0.1
"""Target duration of a transaction; the duration of the previous one determines the number of rows. A pause of the same
length follows, so that the service keeps half of the disk bandwidth."""
MIN_ROWS, MAX_ROWS = 16, 4000
PAGE = 500
"""Jobs, checkpoints or files per query."""
FILE_SECONDS = 3600.0
"""Younger files are kept, as an additional margin: removing them would be safe by the fence alone."""
MAX_DAYS = 1e6
"""Larger ages exceed the dates that PostgreSQL can represent."""

log = logging.getLogger(__name__)

FINAL = ", ".join(f"'{status}'" for status in JobStatus if status.is_final)


@dataclass(frozen=True)
class Policy:
    """Days after the end of a job to keep its checkpoints and its metric points (None: forever).

    `is_dry_run` counts what would be removed and removes nothing.
    """

    checkpoints_days: float
    points_days: float | None
    is_dry_run: bool = False

    @classmethod
    def of_settings(cls) -> Policy:
        """The policy of `KOTRAIN_KEEP_CHECKPOINTS_DAYS` and `KOTRAIN_KEEP_POINTS_DAYS`."""
        return cls(settings().keep_checkpoints_days, settings().keep_points_days)


class Removed(BaseModel):
    """Removed data, or data to be removed. Sizes are in bytes, as stored (points: compressed)."""

    is_dry_run: bool
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    points: int = 0
    point_rows: int = 0
    point_bytes: int = 0
    files: int = 0
    """Files that no row referred to."""
    file_bytes: int = 0
    answers: int = 0
    """Expired responses to repeated requests."""
    unknown_files: int = 0
    """Files of jobs that are not in this database; they are kept."""
    unknown_bytes: int = 0
    transactions: int = 0
    seconds: float = 0
    longest_transaction_seconds: float = 0
    problems: list[str] = []
    """Errors that prevented a removal."""

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was removed and nothing failed."""
        return not (self.checkpoints or self.points or self.files or self.answers or self.problems)


def sweep(should_stop: Callable[[], bool] = lambda: False) -> Removed | None:
    """Remove expired data by the settings; run by each worker, which may have a store of its own. Never raises.

    `should_stop` is called between transactions. Returns None if removal failed, for example without the database.
    """
    try:
        removed = collect(Policy.of_settings(), store(), should_stop)
    except Exception as error:  # the calling thread must survive any error
        log.warning("retention postponed: %s", error, exc_info=not isinstance(error, SQLAlchemyError))
        return None
    for problem in removed.problems:
        log.warning("retention: %s", problem)
    if not removed.is_nothing:
        log.info("retention: removed %s", removed.model_dump_json(exclude={"is_dry_run", "problems"}))
    return removed


def collect(policy: Policy, files: Store, should_stop: Callable[[], bool] = lambda: False) -> Removed:
    """Remove everything the policy does not keep; concurrent calls share the work.

    `should_stop` ends the removal early, after a complete transaction. Raises SQLAlchemyError if the database is
    unavailable; errors of the store are collected in `problems` and do not affect other removals.
    """
    work = _Work(policy, files, should_stop, Removed(is_dry_run=policy.is_dry_run))
    start = time.perf_counter()
    for part in (work.remove_answers, work.remove_points, work.remove_checkpoints, work.remove_files):
        try:
            part()
        except _Stopped:
            break
        except SQLAlchemyError:
            raise
        except Exception as error:  # remote stores have error types of their own
            work.removed.problems.append(f"store {files.url}: {error}")
    work.removed.seconds = time.perf_counter() - start
    return work.removed


# --- output ----------------------------------------------------------------------------------------------------------


def describe(policy: Policy, removed: Removed) -> list[str]:
    """One line of text for each kind of removed data."""
    ended = "of jobs that ended at least {} ago"
    lines = {"checkpoints": f"{removed.checkpoints:,} {ended.format(_age(policy.checkpoints_days))}"}
    lines["checkpoints"] += _sized(removed.checkpoint_bytes)
    if policy.points_days is None:
        lines["points"] = "kept forever (set KOTRAIN_KEEP_POINTS_DAYS or --points-days to delete old ones)"
    else:
        lines["points"] = f"{removed.points:,} {ended.format(_age(policy.points_days))}"
        lines["points"] += (
            f", {counted(removed.point_rows, 'row')}{_sized(removed.point_bytes)}" if removed.points else ""
        )
    lines["files"] = f"{removed.files:,} without a checkpoint{_sized(removed.file_bytes)}"
    if removed.unknown_files:
        lines["kept files"] = f"{removed.unknown_files:,} of jobs that are not in this database"
        lines["kept files"] += _sized(removed.unknown_bytes)
    lines["responses"] = f"{removed.answers:,} expired, stored for repeated requests"
    lines["time"] = f"{duration(removed.seconds)}, {counted(removed.transactions, 'transaction')}, "
    lines["time"] += f"longest {1000 * removed.longest_transaction_seconds:.0f} ms"
    head = ["dry run, nothing is removed; would be removed:"] if removed.is_dry_run else []
    return [*head, *(f"{name:12} {line}" for name, line in lines.items())]


def _age(days: float) -> str:
    return f"{days:g} day{'' if days == 1 else 's'}"


def _sized(size_bytes: int) -> str:
    return f", {size(size_bytes)}" if size_bytes else ""


# --- statements ------------------------------------------------------------------------------------------------------


def _statement(sql: str) -> TextClause:
    uuids = [name for name in ("jobs", "ids") if f":{name}" in sql]
    return text(sql).bindparams(*(bindparam(name, type_=ARRAY(Uuid())) for name in uuids))


_OLD_CHECKPOINTS = f"""
    FROM checkpoints AS old JOIN jobs ON jobs.id = old.job_id
    WHERE jobs.status IN ({FINAL}) AND jobs.finished_at <= clock_timestamp() - make_interval(secs => :seconds)
"""
COUNT_CHECKPOINTS = _statement(f"SELECT count(*) AS rows, sum(size_bytes)::bigint AS bytes {_OLD_CHECKPOINTS}")
REMOVE_CHECKPOINTS = _statement(
    f"""
    DELETE FROM checkpoints WHERE ctid = ANY(ARRAY(
        SELECT old.ctid {_OLD_CHECKPOINTS} LIMIT :rows FOR UPDATE OF old SKIP LOCKED))
    RETURNING file, size_bytes
    """
)

# One index probe per job that still has points, whatever their number: few after a first run.
# Points of running comparisons are kept for their reports.
JOBS_WITH_POINTS = _statement(
    f"""
    WITH RECURSIVE found(id, position) AS (
        (SELECT job_id, 1 FROM metric_chunks WHERE job_id > :after ORDER BY job_id LIMIT 1)
        UNION ALL
        SELECT (SELECT job_id FROM metric_chunks WHERE job_id > found.id ORDER BY job_id LIMIT 1), position + 1
        FROM found WHERE found.id IS NOT NULL AND position < :page)
    SELECT jobs.id,
           jobs.status IN ({FINAL}) AND jobs.finished_at <= clock_timestamp() - make_interval(secs => :seconds)
           AND NOT EXISTS (SELECT FROM comparison_cells JOIN comparisons ON comparisons.id = comparison_id
                           WHERE job_id = jobs.id AND comparisons.status = 'running') AS is_old
    FROM jobs WHERE jobs.id = ANY(ARRAY(SELECT id FROM found)) ORDER BY jobs.id
    """
)
# Sizes as stored: only the steps are decompressed, to count them.
_CHUNK = """cardinality(steps) AS points,
            pg_column_size(steps) + pg_column_size("values") + pg_column_size(wall_seconds) AS bytes"""
COUNT_POINTS = _statement(
    f"""
    SELECT count(*) AS rows, coalesce(sum(points), 0)::bigint AS points, coalesce(sum(bytes), 0)::bigint AS bytes
    FROM (SELECT {_CHUNK} FROM metric_chunks WHERE job_id = ANY(:jobs)) AS old
    """
)
# Continues after the last row instead of from the start, where the index is full of dead entries.
REMOVE_POINTS = _statement(
    f"""
    WITH old AS (
        SELECT ctid, job_id, name_id, first_step FROM metric_chunks
        WHERE job_id = ANY(:jobs) AND (job_id, name_id, first_step) > (:job, :name, :step)
        ORDER BY job_id, name_id, first_step LIMIT :rows FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM metric_chunks WHERE ctid = ANY(ARRAY(SELECT ctid FROM old)) RETURNING {_CHUNK})
    SELECT last.job_id AS job, last.name_id AS name, last.first_step AS step, total.*
    FROM (SELECT count(*) AS rows, sum(points)::bigint AS points, sum(bytes)::bigint AS bytes FROM gone) AS total,
         (SELECT * FROM old ORDER BY job_id DESC, name_id DESC, first_step DESC LIMIT 1) AS last
    """
)

ABOUT_JOBS = _statement(
    """
    SELECT jobs.id, status, jobs.attempt, coalesce(array_agg(file) FILTER (WHERE file IS NOT NULL), '{}') AS files
    FROM jobs LEFT JOIN checkpoints ON job_id = jobs.id WHERE jobs.id = ANY(:ids) GROUP BY jobs.id
    """
)

_EXPIRED = "FROM idempotency_keys AS old WHERE created_at < clock_timestamp() - make_interval(secs => :seconds)"
COUNT_ANSWERS = _statement(f"SELECT count(*) AS rows {_EXPIRED}")
REMOVE_ANSWERS = _statement(
    f"""
    DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT old.ctid {_EXPIRED} LIMIT :rows FOR UPDATE SKIP LOCKED))
    RETURNING 1
    """
)


# --- files -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"jobs/(?P<job>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/(?P<attempt>[0-9]{1,9})/.+")


@dataclass(frozen=True)
class _File:
    """A file of an attempt of a job. Files with other names are never removed."""

    name: str
    size_bytes: int
    job: UUID
    attempt: int

    @classmethod
    def of(cls, name: str, size_bytes: int) -> _File | None:
        match = _NAME.fullmatch(name)
        return match and cls(name, size_bytes, UUID(match["job"]), int(match["attempt"]))

    def is_orphaned(self, status: JobStatus, attempt: int) -> bool:
        """Whether no row can refer to the file in future, by the fence: each claim starts a new attempt."""
        if status.is_final:
            return True
        return self.attempt < attempt if status is JobStatus.RUNNING else self.attempt <= attempt


# --- the work --------------------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """`should_stop` returned True."""


@dataclass
class _Work:
    policy: Policy
    files: Store
    should_stop: Callable[[], bool]
    removed: Removed
    _rows: int = 256
    """Rows of the next transaction."""

    def remove_checkpoints(self) -> None:
        """Delete rows first, and their files after the commit: no row refers to a removed file."""
        age = {"seconds": _seconds(self.policy.checkpoints_days)}
        if self.policy.is_dry_run:
            (row,) = self._run(COUNT_CHECKPOINTS, age)
            self.removed.checkpoints, self.removed.checkpoint_bytes = row.rows, row.bytes or 0
            return
        while deleted := self._run(REMOVE_CHECKPOINTS, {**age, "rows": PAGE}):
            self.removed.checkpoints += len(deleted)
            self.removed.checkpoint_bytes += sum(row.size_bytes for row in deleted)
            self.files.remove(row.file for row in deleted)

    def remove_points(self) -> None:
        """Delete expired chunks of metric points, job by job."""
        if self.policy.points_days is None:
            return
        for jobs in self._jobs_with_old_points(_seconds(self.policy.points_days)):
            if self.policy.is_dry_run:
                self._count_points(*self._run(COUNT_POINTS, {"jobs": jobs}))
                continue
            last: dict[str, Any] = {"job": UUID(int=0), "name": 0, "step": 0}
            while rows := self._run(REMOVE_POINTS, {"jobs": jobs, **last, "rows": self._rows}):
                (row,) = rows
                self._count_points(row)
                last = {"job": row.job, "name": row.name, "step": row.step}
                jobs = [job for job in jobs if job >= row.job]

    def _jobs_with_old_points(self, seconds: float) -> Iterator[list[UUID]]:
        after = UUID(int=0)
        while page := self._run(JOBS_WITH_POINTS, {"after": after, "page": PAGE, "seconds": seconds}):
            after = page[-1].id
            if old := [row.id for row in page if row.is_old]:
                yield old

    def _count_points(self, row: Any) -> None:
        self.removed.point_rows += row.rows
        self.removed.points += row.points or 0
        self.removed.point_bytes += row.bytes or 0

    def remove_answers(self) -> None:
        """Delete expired responses to repeated requests."""
        age = {"seconds": KEPT.total_seconds()}
        if self.policy.is_dry_run:
            (row,) = self._run(COUNT_ANSWERS, age)
            self.removed.answers = row.rows
            return
        while deleted := len(self._run(REMOVE_ANSWERS, {**age, "rows": PAGE})):
            self.removed.answers += deleted

    def remove_files(self) -> None:
        """Remove orphaned files from the store and from the local folder for transfers."""
        self._remove_files_of(self.files, has_rows=True)
        if scratch := self.files.local_copies():
            self._remove_files_of(scratch, has_rows=False)

    def _remove_files_of(self, files: Store, *, has_rows: bool) -> None:
        # Listed before the rows are read, so that files stored in the meantime are not in the list.
        listed = [file for name, size in files.names() if (file := _File.of(name, size))]
        for start in range(0, len(listed), PAGE):
            part = listed[start : start + PAGE]
            jobs = {row.id: row for row in self._run(ABOUT_JOBS, {"ids": list({file.job for file in part})})}
            for file in part:
                job = jobs.get(file.job)
                if job is None:
                    self.removed.unknown_files += 1
                    self.removed.unknown_bytes += file.size_bytes
                elif not (has_rows and file.name in job.files) and file.is_orphaned(JobStatus(job.status), job.attempt):
                    self._remove_file(files, file)

    def _remove_file(self, files: Store, file: _File) -> None:
        try:
            if time.time() - files.modified(file.name) < FILE_SECONDS:
                return
        except FileNotFoundError:
            return
        if not self.policy.is_dry_run:
            files.remove([file.name])
        self.removed.files += 1
        self.removed.file_bytes += file.size_bytes

    def _run(self, statement: TextClause, values: dict[str, Any]) -> Sequence[Any]:
        """Run a statement in its own transaction and return its rows."""
        if self.should_stop():
            raise _Stopped
        start = time.perf_counter()
        with transaction() as session:
            rows = session.execute(statement, values).all()
        seconds = time.perf_counter() - start
        self.removed.transactions += 1
        self.removed.longest_transaction_seconds = max(self.removed.longest_transaction_seconds, seconds)
        if statement is REMOVE_POINTS:
            fitting = self._rows * BATCH_SECONDS / seconds
            self._rows = round(min(max(fitting, self._rows / 2, MIN_ROWS), self._rows * 2, MAX_ROWS))
            time.sleep(min(seconds, BATCH_SECONDS))
        return rows


def _seconds(days: float) -> float:
    return 86_400 * min(days, MAX_DAYS)
