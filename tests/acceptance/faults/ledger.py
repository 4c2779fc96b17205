"""The check after every fault: was each accepted job trained to its end exactly once, as far as its results show?"""

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
"""Metrics that depend on the machine's speed: they must be there, whatever they are."""
OWNERLESS_SECONDS = 30.0
WHOLE = frozenset({Reason.COMPLETED, Reason.TARGET_REACHED})
"""After any other end there may be fewer points than of the undisturbed run, but none between others."""


@dataclass(frozen=True)
class Result:
    """What a run of a spec gives, whatever happens around it."""

    curves: Mapping[str, Curve]
    summary: Mapping[str, Any]

    @property
    def points(self) -> int:
        return sum(len(curve.steps) for curve in self.curves.values())


def results(session: Session, job_ids: Iterable[UUID]) -> dict[UUID, Result]:
    """The results of these jobs, as they are stored."""
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(list(job_ids))))}
    curves = read.curves(session, list(jobs))
    return {id_: Result(curves.get(id_, {}), _lasting(job.summary or {})) for id_, job in jobs.items()}


def _lasting(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary without what depends on the machine's speed and memory."""
    kept = {name: value for name, value in summary.items() if name not in ("train_seconds", "total_seconds", "memory")}
    kept["metrics"] = {name: value for name, value in summary.get("metrics", {}).items() if name not in IN_SECONDS}
    kept["target"] = (summary.get("target") or {}).get("step")
    kept["state_bytes"] = (summary.get("memory") or {}).get("optimizer_state_bytes")
    return kept


@dataclass(frozen=True)
class Entry:
    """What was promised about a job."""

    reference: Result | None
    """Of an undisturbed run of the same spec; None for a job that has none."""
    ends: frozenset[Reason]


@dataclass
class Ledger:
    """The jobs that were accepted, and what is wrong with what became of them; for jobs alone in their tables."""

    entries: dict[UUID, Entry] = field(default_factory=dict)
    unfinished: int = 0
    """Jobs that were not at their end when it looked last."""
    _ownerless_since: dict[tuple[UUID, int], float] = field(default_factory=dict)
    _ownerless: dict[UUID, float] = field(default_factory=dict)

    def accept(
        self, job_id: UUID | str, reference: Result | None, ends: Iterable[Reason] = (Reason.COMPLETED,)
    ) -> None:
        """A job was accepted, and may end for these reasons."""
        self.entries[UUID(str(job_id))] = Entry(reference, frozenset(ends))

    # --- while they run ---

    def look(self, session: Session, living: Iterable[str], now: float | None = None) -> bool:
        """Note which jobs run without a living worker, and since when; answers whether all jobs are at their end."""
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

    def looked_away(self) -> None:
        """The database did not answer, so that nobody could have taken a job back: its seconds do not count."""
        self._ownerless_since.clear()

    @property
    def longest_ownerless_seconds(self) -> float:
        return max(self._ownerless.values(), default=0.0)

    # --- at their end ---

    def problems(self, session: Session) -> list[str]:
        """Everything that is not as it was promised, a line each."""
        found = [
            f"{job_id}: ran {seconds:.0f} s without a living worker"
            for job_id, seconds in self._ownerless.items()
            if seconds > OWNERLESS_SECONDS
        ]
        rows = {job.id: job for job in session.scalars(select(Job))}
        found += [f"{job_id}: accepted, and no longer there" for job_id in self.entries.keys() - rows.keys()]
        found += [f"{job_id}: there, and nobody was told of it" for job_id in rows.keys() - self.entries.keys()]
        events: dict[UUID, list[JobEvent]] = {}
        for event in session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.seq)):
            events.setdefault(event.job_id, []).append(event)
        stored = results(session, rows)
        for job_id in self.entries.keys() & rows.keys():
            entry, job = self.entries[job_id], rows[job_id]
            said = [
                *_of_end(job, entry),
                *_of_events(job, events.get(job_id, [])),
                *_of_curves(stored[job_id].curves),
                *_of_results(job, stored[job_id], entry),
            ]
            found += [f"{job_id}: {problem}" for problem in said]
        return found


def _of_end(job: Job, entry: Entry) -> Iterable[str]:
    if not JobStatus(job.status).is_final:
        yield f"is still {job.status} (attempt {job.attempt}, {job.failures} failures)"
    elif job.reason not in entry.ends:
        yield f"{job.status} because of {job.reason}, not {' or '.join(sorted(entry.ends))}: {job.message}"
    elif Reason(job.reason).status != job.status:
        yield f"{job.status}, but because of {job.reason}"


def _of_events(job: Job, events: list[JobEvent]) -> Iterable[str]:
    if [event.seq for event in events] != list(range(1, len(events) + 1)) or job.seq != len(events):
        yield f"its events are numbered {[event.seq for event in events]}, the last one being {job.seq}"
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
        yield f"is at attempt {job.attempt}, and began the attempts {attempts}"


def _of_curves(curves: Mapping[str, Curve]) -> Iterable[str]:
    for name, curve in curves.items():
        if not (np.diff(curve.steps) > 0).all():
            at = curve.steps[1:][np.diff(curve.steps) <= 0]
            yield f"{name} has a point doubled or out of order at step {at[0]}"
        if not (np.diff(curve.wall_seconds) >= 0).all():
            at = curve.steps[1:][np.diff(curve.wall_seconds) < 0]
            yield f"the wall-clock of {name} goes back at step {at[0]}"


def _of_results(job: Job, result: Result, entry: Entry) -> Iterable[str]:
    if entry.reference is None:
        return
    is_whole = job.reason in WHOLE
    last = max((int(curve.steps[-1]) for curve in result.curves.values()), default=0)
    for name in sorted(result.curves.keys() | entry.reference.curves.keys()):
        yield from _of_curve(
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


def _of_curve(name: str, curve: Curve | None, expected: Curve | None, last: int | None) -> Iterable[str]:
    """Compare a curve with the undisturbed run's: all of it, or, of a run cut off after step `last`, up to there.

    Of the last step itself some metrics may be missing: the run ended between two of them.
    """
    steps = np.empty(0, np.int64) if curve is None else curve.steps
    wanted = np.empty(0, np.int64) if expected is None else expected.steps
    if last is not None:
        must = wanted[wanted < last]
        wanted = wanted[: max(len(must), min(len(steps), int((wanted <= last).sum())))]
    if missing := sorted(set(wanted.tolist()) - set(steps.tolist())):
        yield f"{name} lacks {len(missing)} of {len(wanted)} points, the first at step {missing[0]}"
    elif more := sorted(set(steps.tolist()) - set(wanted.tolist())):
        yield f"{name} has {len(more)} points too many, the first at step {more[0]}"
    elif len(steps) == len(wanted) and name not in IN_SECONDS and curve is not None and expected is not None:
        same = curve.values.view(np.int64) == expected.values[: len(wanted)].view(np.int64)  # to the bit
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            yield (
                f"{name} differs from the undisturbed run's at {int((~same).sum())} of {len(same)} points, the first "
                f"at step {steps[at]}: {curve.values[at]!r} instead of {expected.values[at]!r}"
            )
