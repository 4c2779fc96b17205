"""The running comparisons; separate from their life cycle, so that workers without comparisons need not import it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.specs.states import ComparisonStatus
from service.storage.tables import Comparison


def running(session: Session) -> Sequence[UUID]:
    """Ids of the comparisons that have not ended, oldest first."""
    query = select(Comparison.id).where(Comparison.status == ComparisonStatus.RUNNING).order_by(Comparison.id)
    return session.scalars(query).all()
