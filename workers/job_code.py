"""The uploaded code that a job uses; the plug-ins that it uses are installed."""

from __future__ import annotations

from collections.abc import Callable

from service.code import checks, isolation, plugins, versions
from service.config import settings
from service.jobs.claims import Claim
from service.specs.catalog.declaration import Declaration
from service.specs.states import Reason
from workers import messages
from workers.heartbeat import retry_while_database_is_down


class CodeUnavailable(Exception):
    """The job cannot run, at all or on this worker."""

    def __init__(self, *, unable: str | None = None, invalid: str | None = None) -> None:
        super().__init__(unable or invalid)
        self.unable = unable
        self.failure = (Reason.INVALID, invalid) if invalid else None


def code_of(claim: Claim, give_up: Callable[[], bool]) -> tuple[messages.Code, ...] | None:
    """The versions that a job uses; None if `give_up` returns true while the database is down.

    Raises CodeUnavailable if one has been deleted, if this worker has another version of a plug-in, or if it runs no
    uploaded code.
    """
    optimizer = claim.spec["optimizer"]
    names = versions.stored_names_in(optimizer)
    if not names:
        return ()
    rows = retry_while_database_is_down(lambda session: versions.used_by(session, optimizer), give_up)
    if rows is None:
        return None
    stored = {row.version: row for row in rows}
    deleted = [name for name in names if name not in stored]
    if deleted:
        raise CodeUnavailable(
            invalid=f"this worker cannot run '{deleted[0]}': "
            + (plugins.why_missing(deleted[0]) or "it has been deleted, or is a plug-in that is not installed here")
        )
    if settings().uploaded_code == "off":
        raise CodeUnavailable(unable="this worker runs no uploaded code (KOTRAIN_UPLOADED_CODE is off)")
    if settings().uploaded_code == "confined" and (why := isolation.missing()) is not None:
        raise CodeUnavailable(unable=f"this worker cannot isolate uploaded code: {why}")
    return tuple(
        messages.Code(
            Declaration.model_validate(row.declaration | {"is_resumable": checks.resumes(row)}), row.file, row.source
        )
        for row in stored.values()
    )
