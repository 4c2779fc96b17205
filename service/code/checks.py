"""Results of the conformance tests of uploaded code: which version is to be tested, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, aliased

from service.code.schemas import Check, Outcome
from service.storage.tables import CodeVersion

NAMES = (
    "construct",
    "training",
    "quadratic",
    "evaluation",
    "repeatability",
    "resume",
    "random_state",
    "frozen",
    "empty",
    "half",
    "schedule",
    "cost",
)
"""The checks of `workers.training.conformance`, in their order."""
RETRY = timedelta(minutes=5)
"""A test without a result is repeated after this time: its worker was lost, or could not run it."""


def _is_due() -> ColumnElement[bool]:
    now = func.clock_timestamp()
    is_free = CodeVersion.checking_since.is_(None) | (CodeVersion.checking_since < now - RETRY)
    return CodeVersion.checks.is_(None) & is_free


def claim(session: Session) -> CodeVersion | None:
    """The next version to test, which no other worker will test for `RETRY`; None if there is none.

    It is the oldest version of the user with the fewest untested versions, so that many uploads of one user do not
    delay the tests of others.
    """
    other = aliased(CodeVersion)
    waiting = (
        select(func.count(other.id))
        .where(other.user_id == CodeVersion.user_id, other.checks.is_(None))
        .correlate(CodeVersion)
        .scalar_subquery()
    )
    due = select(CodeVersion.id).where(_is_due()).order_by(waiting, CodeVersion.id).limit(1)
    statement = (
        update(CodeVersion)
        .where(CodeVersion.id == due.with_for_update(skip_locked=True).scalar_subquery())
        .values(checking_since=func.clock_timestamp())
        .returning(CodeVersion)
    )
    return session.scalar(statement)


def store(session: Session, id_: UUID, results: Sequence[Check] | None) -> None:
    """Store the results of a version; without any, it is tested again after `RETRY`."""
    if results is not None:
        documents = [result.model_dump() for result in results]
        session.execute(update(CodeVersion).where(CodeVersion.id == id_).values(checks=documents))


def outcome(row: CodeVersion) -> Outcome | None:
    """The worst outcome; None until the test has run."""
    found = {check["outcome"] for check in row.checks or ()}
    return next((worst for worst in ("fail", "warning", "pass") if worst in found), None)


def resumes(row: CodeVersion) -> bool:
    """Whether the test has shown that a run continues from a checkpoint bit for bit."""
    return any(check["name"] == "resume" and check["outcome"] == "pass" for check in row.checks or ())
