"""Advisory locks on uploaded data sets."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def hold_dataset(session: Session, name: str, *, alone: bool = False) -> None:
    """Lock an uploaded data set until the transaction ends: shared by submissions, exclusive (`alone`) for removal."""
    lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
    session.execute(select(lock(func.hashtextextended(f"kotrain.dataset {name}", 0))))
