"""Advisory locks on uploaded data sets."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def hold_dataset(session: Session, name: str, *, alone: bool = False) -> None:
    """Keep somebody's own data set as it is until the transaction ends: whoever submits may share it with others who
    do, whoever removes it (`alone`) with nobody."""
    lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
    session.execute(select(lock(func.hashtextextended(f"kotrain.dataset {name}", 0))))
