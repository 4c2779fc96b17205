"""The ledger's check: it detects every kind of violation, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from service.accounts import api_keys
from service.jobs import claims, heartbeats, outcomes, submission
from service.jobs.requests import JobRequest
from service.metrics import write
from service.specs.states import Reason
from service.specs.summary import Summary
from service.storage import database
from service.storage.tables import User
from tests.acceptance.faults.ledger import OWNERLESS_SECONDS, Ledger, results
from tests.acceptance.faults.specs import SPECS

POINTS = {
    "train_loss": ([10, 20, 30], [0.1, 0.2, 0.3], [0.5, 1.0, 1.5]),
    "val_loss": ([15, 30], [1.0, 2.0], [0.75, 1.5]),
    "samples_per_second": ([15, 30], [100.0, 200.0], [0.75, 1.5]),
}
SUMMARY = Summary(
    reason=Reason.COMPLETED,
    steps=30,
    epochs=2.0,
    train_seconds=1.0,
    total_seconds=2.0,
    parameters=7,
    metrics={"val_loss": 2.0, "samples_per_second": 150.0},
    best_step=15,
    target=None,
)


@pytest.fixture
def submit(empty: None) -> Callable[[], claims.Claim]:
    """A function that submits and claims a job."""
    api_keys.create("ada")

    def submitted() -> claims.Claim:
        with database.transaction() as session:
            user = session.scalars(select(User)).one()
            submission.submit(session, user, JobRequest.model_validate(SPECS["tiny"]))
            claim = claims.claim(session, "worker", has_cuda=False)
            assert claim is not None
            return claim

    return submitted


def finish(claim: claims.Claim, reason: Reason = Reason.COMPLETED, points: write.Points = POINTS) -> None:
    with database.transaction() as session:
        summary = SUMMARY.model_copy(update={"reason": reason})
        assert outcomes.finish(session, claim, reason, summary=summary, batches=[heartbeats.Batch(points)])


@pytest.fixture
def ended(submit: Callable[[], claims.Claim]) -> Ledger:
    """Two finished jobs of one spec; the first is the reference of the second."""
    owned = [submit(), submit()]
    for claim in owned:
        finish(claim)
    with database.transaction() as session:
        reference = results(session, [owned[0].job_id])[owned[0].job_id]
    ledger = Ledger()
    for claim in owned:
        ledger.accept(claim.job_id, reference)
    return ledger


def problems(ledger: Ledger, change: str = "SELECT 1") -> list[str]:
    """Return the problems after an SQL statement has changed the second job."""
    second = list(ledger.entries)[-1]
    with database.transaction() as session:
        name = "(SELECT id FROM metric_names WHERE name = 'train_loss')"
        session.execute(text(change.replace(":loss", f"job_id = :job AND name_id = {name}")), {"job": second})
    with database.transaction() as session:
        violations = ledger.problems(session)
    assert all(str(second) in violation for violation in violations)
    return violations


def test_finds_nothing_wrong_with_sound_jobs(ended: Ledger) -> None:
    assert problems(ended) == []


def test_note_is_no_change_of_status(ended: Ledger, submit: Callable[[], claims.Claim]) -> None:
    claim = submit()
    with database.transaction() as session:
        assert claims.begin(session, claim, step=10)
    finish(claim)
    ended.accept(claim.job_id, next(iter(ended.entries.values())).reference)
    assert problems(ended) == []


def test_metrics_of_speed_are_not_compared(ended: Ledger) -> None:
    name = "(SELECT id FROM metric_names WHERE name = 'samples_per_second')"
    change = f"UPDATE metric_chunks SET values = '{{1, 2}}' WHERE job_id = :job AND name_id = {name}"
    assert problems(ended, change) == []


VIOLATIONS = {
    "a point is missing": (
        "UPDATE metric_chunks SET steps = '{10,30}', values = '{0.1,0.3}', wall_seconds = '{0.5,1.5}' WHERE :loss",
        "train_loss lacks 1 of 3 points, the first at step 20",
    ),
    "the last point is missing": (
        "UPDATE metric_chunks SET steps = '{10,20}', values = '{0.1,0.2}', wall_seconds = '{0.5,1}' WHERE :loss",
        "train_loss lacks 1 of 3 points, the first at step 30",
    ),
    "a curve is missing": ("DELETE FROM metric_chunks WHERE :loss", "train_loss lacks 3 of 3 points"),
    "a point is duplicate": (
        "INSERT INTO metric_chunks SELECT job_id, name_id, 20, '{20}', '{0.2}', '{1.0}' FROM metric_chunks WHERE :loss",
        "train_loss has a duplicate or unordered point at step 20",
    ),
    "there is an extra point": (
        "INSERT INTO metric_chunks SELECT job_id, name_id, 40, '{40}', '{0.2}', '{2.0}' FROM metric_chunks WHERE :loss",
        "train_loss has 1 extra points, the first at step 40",
    ),
    "a value differs in its last bit": (
        "UPDATE metric_chunks SET values = '{0.1, 0.2, 0.30000000000000004}' WHERE :loss",
        "train_loss differs from the undisturbed run's at 1 of 3 points, the first at step 30",
    ),
    "the wall-clock goes back": (
        "UPDATE metric_chunks SET wall_seconds = '{0.5, 1, 0.9}' WHERE :loss",
        "the wall-clock of train_loss goes back at step 30",
    ),
    "its summary differs": (
        "UPDATE jobs SET summary = jsonb_set(summary, '{metrics,val_loss}', '2.5') WHERE id = :job",
        "its summary differs from the undisturbed run's: {'metrics'",
    ),
    "it ended twice": (
        "WITH again AS (UPDATE jobs SET seq = seq + 1 WHERE id = :job RETURNING seq) INSERT INTO job_events "
        "(job_id, seq, attempt, status, reason) SELECT :job, seq, 1, 'succeeded', 'completed' FROM again",
        "its final events are [(3, 'succeeded'), (4, 'succeeded')]",
    ),
    "it continued after its end": (
        "WITH again AS (UPDATE jobs SET seq = seq + 1 WHERE id = :job RETURNING seq) INSERT INTO job_events "
        "(job_id, seq, attempt, status) SELECT :job, seq, 2, 'running' FROM again",
        "went from succeeded to running (event 4)",
    ),
    "an event is missing": ("DELETE FROM job_events WHERE job_id = :job AND seq = 2", "its events are numbered [1, 3]"),
    "an attempt began without an event": (
        "UPDATE jobs SET attempt = 2 WHERE id = :job",
        "is at attempt 2, but its events begin the attempts",
    ),
    "it ended for another reason": (
        "UPDATE jobs SET status = 'failed', reason = 'child_lost' WHERE id = :job",
        "failed because of child_lost, not completed",
    ),
    "it does not end": ("UPDATE jobs SET status = 'queued' WHERE id = :job", "is still queued"),
    "it is missing": ("DELETE FROM jobs WHERE id = :job", "accepted, but missing"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_violation_is_detected(ended: Ledger, violation: str) -> None:
    change, message = VIOLATIONS[violation]
    assert any(message in problem for problem in problems(ended, change)), problems(ended)


def test_job_that_was_never_accepted_is_detected(ended: Ledger, submit: Callable[[], claims.Claim]) -> None:
    stranger = submit().job_id
    with database.transaction() as session:
        assert ended.problems(session) == [f"{stranger}: stored, but never accepted"]


class TestCancelledRun:
    """It must have the points of the undisturbed run up to its last step, where some metrics may be missing."""

    @pytest.mark.parametrize(
        ("steps", "validated", "message"),
        [
            ([10, 20], [15], None),
            ([10], [], None),
            ([10, 20, 30], [15], None),
            ([20], [15], "train_loss lacks 1 of 1 points, the first at step 10"),
            ([10, 20], [], "val_loss lacks 1 of 1 points, the first at step 15"),
            ([10, 20, 25], [15], "train_loss has 1 extra points, the first at step 25"),
        ],
    )
    def test_points_up_to_the_last_step_are_required(self, ended, submit, steps, validated, message):
        claim = submit()
        steps_of = {"train_loss": steps, "val_loss": validated, "samples_per_second": validated}
        points = {
            name: tuple(zip(*(p for p in zip(*POINTS[name], strict=True) if p[0] in kept), strict=True))
            for name, kept in steps_of.items()
        }
        if 25 in steps:
            points["train_loss"] = ((10, 20, 25), (0.1, 0.2, 0.25), (0.5, 1.0, 1.25))
        finish(claim, Reason.CANCELLED, {name: columns for name, columns in points.items() if columns})
        reference = next(iter(ended.entries.values())).reference
        ended.accept(claim.job_id, reference, [Reason.CANCELLED])
        violations = problems(ended)
        assert (violations == []) if message is None else any(message in violation for violation in violations)

    def test_cancel_of_a_job_that_must_complete_is_detected(self, ended, submit):
        claim = submit()
        finish(claim, Reason.CANCELLED)
        ended.accept(claim.job_id, None)
        assert any("cancelled because of cancelled, not completed" in problem for problem in problems(ended))


class TestOwnerlessJobs:
    def test_job_without_a_live_worker_for_too_long_is_detected(self, submit):
        ledger = Ledger()
        ledger.accept(submit().job_id, None)
        with database.transaction() as session:
            assert not ledger.look(session, ["worker"], now=0.0)
            ledger.look(session, [], now=100.0)
            ledger.look(session, [], now=100.0 + OWNERLESS_SECONDS + 1)
        assert any("ran 31 s without a living worker" in problem for problem in problems(ledger))

    def test_job_reclaimed_in_time_is_sound(self, submit):
        ledger = Ledger()
        claim = submit()
        ledger.accept(claim.job_id, None)
        with database.transaction() as session:
            ledger.look(session, [], now=0.0)
            ledger.look(session, ["worker"], now=20.0)
            ledger.look(session, [], now=40.0)
            ledger.look(session, [], now=60.0)
        assert ledger.longest_ownerless_seconds == 20.0
        finish(claim)
        with database.transaction() as session:
            assert ledger.look(session, [], now=200.0)
        assert problems(ledger) == []

    def test_outage_of_the_database_does_not_count(self, submit):
        ledger = Ledger()
        ledger.accept(submit().job_id, None)
        with database.transaction() as session:
            ledger.look(session, [], now=0.0)
            ledger.skip_look()
            ledger.look(session, [], now=100.0)
        assert ledger.longest_ownerless_seconds == 0.0
