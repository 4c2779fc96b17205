"""How an attempt ended, and what is stored of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from enum import Enum, auto

from sqlalchemy.orm import Session

from service.config import settings
from service.jobs import outcomes
from service.jobs.claims import Claim
from service.specs.states import Reason
from service.specs.summary import Summary
from workers import messages
from workers.heartbeat import AttemptState, retry_while_database_is_down
from workers.host import Host

log = logging.getLogger(__name__)


class Interruption(Enum):
    """Why the supervisor stops a process."""

    CANCEL = auto()
    TIME_LIMIT = auto()
    DRAIN = auto()
    MEMORY = auto()
    STALL = auto()
    EXCESS = auto()
    LOST = auto()


@dataclass
class Outcome:
    """The last messages of a child, and how its process ended."""

    stop: Interruption | None = None
    summary: Summary | None = None
    measured: dict[str, float] | None = None
    """Metrics of the weights of a job with uploaded code."""
    failure: tuple[Reason, str] | None = None
    killed_for_memory: bool = False
    failed_to_allocate: bool = False
    memory_bytes: int = 0
    """Memory limit of its processes, and what they used when last measured; both without the training engine."""
    used_bytes: int = 0
    checkpoints: set[str] = field(default_factory=set)
    """Names of the files of its checkpoints."""
    excess: str | None = None
    """What uploaded code used too much of."""
    unable: str | None = None
    """Why this machine cannot run the job at present."""
    exit_description: str = ""
    """How the process ended, for processes that sent no result."""

    @property
    def is_complete(self) -> bool:
        """Whether the process has sent its last message."""
        return any(end is not None for end in (self.summary, self.measured, self.failure, self.unable))


def may_continue(outcome: Outcome) -> bool:
    """Whether another attempt may follow this outcome."""
    if outcome.stop is Interruption.DRAIN:
        return outcome.summary is None or outcome.summary.reason is Reason.CANCELLED
    if outcome.stop not in (None, Interruption.STALL) or outcome.summary is not None:
        return False
    return outcome.failure is None or outcome.failure[0] is Reason.CHILD_LOST


def store_outcome(claim: Claim, state: AttemptState, outcome: Outcome, host: Host) -> None:
    """Store the end of the attempt; while the database is unavailable, retry until the worker has to shut down."""
    deadline = None

    def give_up() -> bool:
        nonlocal deadline
        if not host.draining.is_set():
            return False
        deadline = deadline or time.monotonic() + settings().drain_seconds
        return time.monotonic() > deadline

    try:
        stored = retry_while_database_is_down(lambda session: _end_attempt(session, claim, state, outcome), give_up)
    except Exception as error:  # some content cannot be stored: store this error instead
        log.exception("job %s: outcome could not be stored", claim.job_id)
        message = f"the end of the run could not be stored: {error}"
        stored = retry_while_database_is_down(
            lambda session: outcomes.finish(session, claim, Reason.ERROR, message=message), give_up
        )
    if stored is None:
        log.error("job %s: outcome not stored; the job will be requeued and run again", claim.job_id)


class _Ending:
    """Stores the end of an attempt together with all that it has not stored yet."""

    def __init__(self, session: Session, claim: Claim, state: AttemptState, summary: Summary | None) -> None:
        self._session, self._claim, self._state, self._summary = session, claim, state, summary
        self._batches = state.seal()

    def finish(self, reason: Reason, message: str | None) -> bool:
        """As `outcomes.finish`."""
        return outcomes.finish(
            self._session,
            self._claim,
            reason,
            message=message,
            summary=self._summary and self._summary.model_copy(update={"reason": reason}),
            environment=self._state.environment,
            total_steps=self._state.total_steps,
            batches=self._batches,
        )

    def requeue(self, message: str, wait_seconds: float = 0.0) -> bool:
        """As `outcomes.requeue`."""
        return outcomes.requeue(self._session, self._claim, message, wait_seconds, self._batches)

    def fail(self, reason: Reason, message: str) -> bool:
        """As `outcomes.fail`."""
        return outcomes.fail(self._session, self._claim.job_id, self._claim.attempt, reason, message, self._batches)


def _end_attempt(session: Session, claim: Claim, state: AttemptState, outcome: Outcome) -> bool:
    """Map the outcome of a process to the status of its job; the only place that decides this."""
    summary = outcome.summary
    ending = _Ending(session, claim, state, summary)
    figures = messages.memory_text(outcome.used_bytes, outcome.memory_bytes)
    if summary is not None and summary.reason is not Reason.CANCELLED:  # it ended by itself, even if asked to stop
        return ending.finish(summary.reason, summary.message)
    if outcome.unable is not None:
        wait_seconds = settings().backoff_seconds * 2.0 ** min(claim.attempt - 1, 6)
        return ending.requeue(outcome.unable, wait_seconds)
    match outcome.stop:
        case Interruption.CANCEL:
            return ending.finish(Reason.CANCELLED, "cancelled while running")
        case Interruption.TIME_LIMIT:
            return ending.finish(Reason.TIMED_OUT, f"stopped at the time limit of {claim.time_limit_seconds:g} s")
        case Interruption.DRAIN if outcome.failure is None:
            return ending.requeue("the worker is shutting down")
        case Interruption.MEMORY:
            return ending.finish(Reason.OUT_OF_MEMORY, f"memory limit exceeded: {figures}")
        case Interruption.EXCESS:
            return ending.finish(Reason.ERROR, f"the uploaded code was stopped: {outcome.excess}")
        case Interruption.STALL:
            timeout = f"{settings().stall_seconds:g} s (KOTRAIN_STALL_SECONDS of the worker)"
            return ending.fail(Reason.CHILD_LOST, f"no output of the training process for {timeout}")
    if outcome.failure is not None:
        reason, message = outcome.failure
        return ending.fail(reason, message) if reason is Reason.CHILD_LOST else ending.finish(reason, message)
    if outcome.killed_for_memory:
        return ending.fail(
            Reason.OUT_OF_MEMORY,
            f"the kernel killed the training process because the machine ran out of memory; the process had {figures}",
        )
    if outcome.failed_to_allocate:
        ended = f"the training process could not allocate memory and {outcome.exit_description}"
        return ending.finish(Reason.OUT_OF_MEMORY, f"{ended}; at the last check it {figures}")
    return ending.fail(Reason.CHILD_LOST, f"the training process {outcome.exit_description}")
