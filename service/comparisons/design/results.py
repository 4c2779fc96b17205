"""The result of a run: its status and the metrics on which the schedule depends."""

from __future__ import annotations

from dataclasses import dataclass

from service.specs.states import JobStatus, Reason


@dataclass(frozen=True)
class Result:
    """Status of a job and its metrics. `value` is the primary endpoint; the validation metrics rank trials."""

    status: JobStatus
    reason: Reason | None
    value: float | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_final

    @property
    def diverged(self) -> bool:
        """Whether the run ended in a loss that is not finite: a result, unlike other failures."""
        return self.reason is Reason.DIVERGED

    @property
    def failed(self) -> bool:
        """Whether the job ended without a result."""
        return self.is_final and self.status is not JobStatus.SUCCEEDED and not self.diverged
