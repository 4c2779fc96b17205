"""The check after every fault: the results show that each accepted job was trained to its end exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.metrics import read
from service.metrics.read import Curve
from service.specs.states import TRANSITIONS, JobStatus, Reason
from service.storage.tables import Job, JobEvent

IN_SECONDS = ("samples_per_second", "diagnostics_seconds")
"""Metrics that depend on the machine's speed: their points must exist, with any values."""
OWNERLESS_SECONDS = 30.0
WHOLE = frozenset({Reason.COMPLETED, Reason.TARGET_REACHED})
"""Reasons after which all points of the undisturbed run must exist; after others, points may be missing at the end."""


@dataclass(frozen=True)
class Result:
    """The part of a run's result that depends on its spec alone."""

    curves: Mapping[str, Curve]
    summary: Mapping[str, Any]

    @property
    def points(self) -> int:
        return sum(len(curve.steps) for curve in self.curves.values())


def results(session: Session, job_ids: Iterable[UUID]) -> dict[UUID, Result]:
    """Return the stored results of these jobs."""
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(list(job_ids))))}
    curves = read.curves(session, list(jobs))
    return {id_: Result(curves.get(id_, {}), _reproducible(job.summary or {})) for id_, job in jobs.items()}


def _reproducible(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary without the values that depend on the machine's speed and memory."""
    result = {
        name: value for name, value in summary.items() if name not in ("train_seconds", "total_seconds", "memory")
    }
    result["metrics"] = {name: value for name, value in summary.get("metrics", {}).items() if name not in IN_SECONDS}
    result["target"] = (summary.get("target") or {}).get("step")
    result["state_bytes"] = (summary.get("memory") or {}).get("optimizer_state_bytes")
    return result


@dataclass(frozen=True)
class Entry:
    """The expected result of an accepted job."""

    reference: Result | None
    """Result of an undisturbed run of the same spec; None if there is none to compare with."""
    ends: frozenset[Reason]


@dataclass
class Ledger:
    """The accepted jobs; finds the differences between the tables, which hold no other jobs, and their promises."""

    entries: dict[UUID, Entry] = field(default_factory=dict)
    unfinished: int = 0
    """Number of jobs that had not ended at the last look."""
    _ownerless_since: dict[tuple[UUID, int], float] = field(default_factory=dict)
    _ownerless: dict[UUID, float] = field(default_factory=dict)

    def accept(
        self, job_id: UUID | str, reference: Result | None, ends: Iterable[Reason] = (Reason.COMPLETED,)
    ) -> None:
        """Record that a job was accepted, and for which reasons it may end."""
        self.entries[UUID(str(job_id))] = Entry(reference, frozenset(ends))

    # --- while the jobs run ---

    def look(self, session: Session, living: Iterable[str], now: float | None = None) -> bool:
        """Record which jobs run without a live worker, and since when; return whether all jobs have ended."""
        now = time.monotonic() if now is None else now
        alive = set(living)
        rows = session.execute(
            select(Job.id, Job.attempt, Job.worker_id, Job.status).where(
                Job.id.in_(list(self.entries)), Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING))
            )
        ).all()
        ownerless = {(r.id, r.attempt) for r in rows if r.status == JobStatus.RUNNING and r.worker_id not in alive}
        self._ownerless_since = {key: self._ownerless_since.get(key, now) for key in ownerless}
        for (job_id, _), since in self._ownerless_since.items():
            self._ownerless[job_id] = max(self._ownerless.get(job_id, 0.0), now - since)
        self.unfinished = len(rows)
        return not rows

    def skip_look(self) -> None:
        """Record that the database was unreachable: no job could be reclaimed, so the time does not count."""
        self._ownerless_since.clear()

    @property
    def longest_ownerless_seconds(self) -> float:
        return max(self._ownerless.values(), default=0.0)

    # --- after their end ---

    def problems(self, session: Session) -> list[str]:
        """Return every violation, a line each."""
        problems = [
            f"{job_id}: ran {seconds:.0f} s without a living worker"
            for job_id, seconds in self._ownerless.items()
            if seconds > OWNERLESS_SECONDS
        ]
        rows = {job.id: job for job in session.scalars(select(Job))}
        problems += [f"{job_id}: accepted, but missing" for job_id in self.entries.keys() - rows.keys()]
        problems += [f"{job_id}: stored, but never accepted" for job_id in rows.keys() - self.entries.keys()]
        events: dict[UUID, list[JobEvent]] = {}
        for event in session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.seq)):
            events.setdefault(event.job_id, []).append(event)
        stored = results(session, rows)
        for job_id in self.entries.keys() & rows.keys():
            entry, job = self.entries[job_id], rows[job_id]
            violations = [
                *_check_end(job, entry),
                *_check_events(job, events.get(job_id, [])),
                *_check_curves(stored[job_id].curves),
                *_check_results(job, stored[job_id], entry),
            ]
            problems += [f"{job_id}: {violation}" for violation in violations]
        return problems


def _check_end(job: Job, entry: Entry) -> Iterable[str]:
    if not JobStatus(job.status).is_final:
        yield f"is still {job.status} (attempt {job.attempt}, {job.failures} failures)"
    elif job.reason not in entry.ends:
        yield f"{job.status} because of {job.reason}, not {' or '.join(sorted(entry.ends))}: {job.message}"
    elif Reason(job.reason).status != job.status:
        yield f"{job.status}, but because of {job.reason}"


def _check_events(job: Job, events: list[JobEvent]) -> Iterable[str]:
    if [event.seq for event in events] != list(range(1, len(events) + 1)) or job.seq != len(events):
        yield f"its events are numbered {[event.seq for event in events]}, the job's last one is {job.seq}"
    for before, after in pairwise(events):
        is_note = before.status == after.status == JobStatus.RUNNING and before.attempt == after.attempt
        if not is_note and JobStatus(after.status) not in TRANSITIONS[JobStatus(before.status)]:
            yield f"went from {before.status} to {after.status} (event {after.seq})"
    finals = [event for event in events if JobStatus(event.status).is_final]
    if (
        len(finals) != 1
        or finals[0] is not events[-1]
        or (finals[0].status, finals[0].reason) != (job.status, job.reason)
    ):
        yield f"is {job.status}, and its final events are {[(event.seq, event.status) for event in finals]}"
    attempts = [attempt for attempt, _ in groupby(e.attempt for e in events if e.status == JobStatus.RUNNING)]
    if attempts != list(range(1, job.attempt + 1)):
        yield f"is at attempt {job.attempt}, but its events begin the attempts {attempts}"


def _check_curves(curves: Mapping[str, Curve]) -> Iterable[str]:
    for name, curve in curves.items():
        if not (np.diff(curve.steps) > 0).all():
            at = curve.steps[1:][np.diff(curve.steps) <= 0]
            yield f"{name} has a duplicate or unordered point at step {at[0]}"
        if not (np.diff(curve.wall_seconds) >= 0).all():
            at = curve.steps[1:][np.diff(curve.wall_seconds) < 0]
            yield f"the wall-clock of {name} goes back at step {at[0]}"


def _check_results(job: Job, result: Result, entry: Entry) -> Iterable[str]:
    if entry.reference is None:
        return
    is_whole = job.reason in WHOLE
    last = max((int(curve.steps[-1]) for curve in result.curves.values()), default=0)
    for name in sorted(result.curves.keys() | entry.reference.curves.keys()):
        yield from _check_curve(
            name, result.curves.get(name), entry.reference.curves.get(name), None if is_whole else last
        )
    if is_whole and result.summary != entry.reference.summary:
        differing = {
            key: (result.summary.get(key), value)
            for key, value in entry.reference.summary.items()
            if result.summary.get(key) != value
        }
        yield f"its summary differs from the undisturbed run's: {differing}"
    if is_whole and job.step != result.summary["steps"]:
        yield f"is at step {job.step} after {result.summary['steps']} steps"


def _check_curve(name: str, curve: Curve | None, expected: Curve | None, last: int | None) -> Iterable[str]:
    """Compare a curve with the undisturbed run's: all of it, or up to step `last` if the run ended there.

    Some metrics of the last step may be missing: the run ended between two of them.
    """
    steps = np.empty(0, np.int64) if curve is None else curve.steps
    expected_steps = np.empty(0, np.int64) if expected is None else expected.steps
    if last is not None:
        required = int((expected_steps < last).sum())
        possible = int((expected_steps <= last).sum())
        expected_steps = expected_steps[: max(required, min(len(steps), possible))]
    if missing := sorted(set(expected_steps.tolist()) - set(steps.tolist())):
        yield f"{name} lacks {len(missing)} of {len(expected_steps)} points, the first at step {missing[0]}"
    elif extra := sorted(set(steps.tolist()) - set(expected_steps.tolist())):
        yield f"{name} has {len(extra)} extra points, the first at step {extra[0]}"
    elif len(steps) == len(expected_steps) and name not in IN_SECONDS and curve is not None and expected is not None:
        same = curve.values.view(np.int64) == expected.values[: len(expected_steps)].view(np.int64)  # bitwise
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            yield (
                f"{name} differs from the undisturbed run's at {int((~same).sum())} of {len(same)} points, the first "
                f"at step {steps[at]}: {curve.values[at]!r} instead of {expected.values[at]!r}"
            )
