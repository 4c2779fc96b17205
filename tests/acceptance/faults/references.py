"""What jobs give when nothing happens to them: the numbers that all others are held against."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select, text

from service.storage import database
from service.storage.tables import Job, JobEvent
from tests.acceptance.faults.ledger import WHOLE, Ledger, Result, results
from tests.acceptance.faults.specs import SPECS
from tests.acceptance.faults.stack import PATIENCE_SECONDS, Stack
from tests.waiting import until

TRIES = 3
"""A machine that does nothing for seconds has disturbed the run."""


def undisturbed(stack: Stack, names: Iterable[str]) -> dict[str, Result]:
    """The results of jobs that needed one attempt, by name; leaves no job behind."""
    found: dict[str, Result] = {}
    disturbed: list[str] = []
    for _ in range(TRIES):
        missing = [name for name in names if name not in found]
        ids = {name: UUID(stack.caller.post("/v1/jobs", json=SPECS[name]).json()["id"]) for name in missing}
        ledger = Ledger()
        for job_id in ids.values():
            ledger.accept(job_id, None, WHOLE)

        def have_ended(ledger: Ledger = ledger) -> bool:
            with database.transaction() as session:
                return ledger.look(session, stack.living())

        until(have_ended, PATIENCE_SECONDS)
        with database.transaction() as session:
            assert ledger.problems(session) == []
            found_now = results(session, ids.values())
            attempts = {row.id: row.attempt for row in session.execute(select(Job.id, Job.attempt))}
            found |= {name: found_now[job_id] for name, job_id in ids.items() if attempts[job_id] == 1}
            disturbed += [str(each) for each in session.scalars(select(JobEvent.message).where(JobEvent.message != ""))]
            session.execute(text("TRUNCATE jobs CASCADE"))
        if len(found) == len(set(names)):
            return found
    raise AssertionError(f"this machine is too busy for a run without interruption: {disturbed}")
