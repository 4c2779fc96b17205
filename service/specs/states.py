"""States of jobs and comparisons, and reasons for the end of a job."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Status of a job; `cancel_requested` is a separate flag."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no transition leaves this status."""
        return not TRANSITIONS[self]

    @property
    def clause(self) -> str:
        """The status in a sentence about a job: `is running`, `has failed`, `was cancelled`."""
        if self is JobStatus.CANCELLED:
            return f"was {self}"
        return f"has {self}" if self.is_final else f"is {self}"


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


class ComparisonStatus(StrEnum):
    """Status of a comparison. `failed`: a run that it needs has failed; the answer covers the others."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job ended or returned to the queue."""

    COMPLETED = "completed"
    TARGET_REACHED = "target_reached"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    CHILD_LOST = "child_lost"
    CANCELLED = "cancelled"
    INVALID = "invalid"
    ERROR = "error"

    @property
    def words(self) -> str:
        """The reason in a sentence: `timed out`, `training process lost`."""
        return "training process lost" if self is Reason.CHILD_LOST else self.replace("_", " ")

    @property
    def status(self) -> JobStatus:
        """The final status of a job that ends for this reason."""
        if self in (Reason.COMPLETED, Reason.TARGET_REACHED):
            return JobStatus.SUCCEEDED
        return JobStatus.CANCELLED if self is Reason.CANCELLED else JobStatus.FAILED
