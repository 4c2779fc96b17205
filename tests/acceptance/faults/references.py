"""The results of jobs without faults, with which all others are compared."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select

from service.storage import database
from service.storage.tables import Job, JobEvent
from tests import tables
from tests.acceptance.faults.ledger import WHOLE, Ledger, Result, results
from tests.acceptance.faults.specs import SPECS
from tests.acceptance.faults.stack import PATIENCE_SECONDS, Stack
from tests.waiting import until

TRIES = 3
"""A machine that pauses for seconds disturbs a run, which is then repeated."""


def undisturbed(stack: Stack, names: Iterable[str]) -> dict[str, Result]:
    """Return the results of jobs that needed a single attempt, by name; leaves no jobs in the tables."""
    references: dict[str, Result] = {}
    messages: list[str] = []
    for _ in range(TRIES):
        missing = [name for name in names if name not in references]
        ids = {name: UUID(stack.client.post("/v1/jobs", json=SPECS[name]).json()["id"]) for name in missing}
        ledger = Ledger()
        for job_id in ids.values():
            ledger.accept(job_id, None, WHOLE)

        def have_ended(ledger: Ledger = ledger) -> bool:
            with database.transaction() as session:
                return ledger.look(session, stack.living())

        until(have_ended, PATIENCE_SECONDS)
        with database.transaction() as session:
            assert ledger.problems(session) == []
            stored = results(session, ids.values())
            attempts = {row.id: row.attempt for row in session.execute(select(Job.id, Job.attempt))}
            references |= {name: stored[job_id] for name, job_id in ids.items() if attempts[job_id] == 1}
            messages += [
                str(message) for message in session.scalars(select(JobEvent.message).where(JobEvent.message != ""))
            ]
        tables.clear_jobs()
        if len(references) == len(set(names)):
            return references
    raise AssertionError(f"this machine is too busy for a run without interruptions: {messages}")
