"""The request body of a job."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from service.specs.bodies import Label, TagKey
from service.specs.training import TrainSpec

JOB_EXAMPLE: JsonDict = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [256, 256]}},
    "optimizer": {"name": "ko", "params": {"base": "adam", "lr": 0.001, "collision": "soft", "gamma": 0.1}},
    "schedule": "cosine",
    "budget": {"epochs": 30},
    "batch_size": 64,
    "seed": 0,
    "target": {"metric": "val_accuracy", "value": 0.95},
    "tags": {"study": "first"},
}


MIN_MEMORY_BYTES = 2**28
"""Least memory limit of a job, which does not count the training engine; the digits need about 40 MiB."""


class JobRequest(TrainSpec):
    """A training run, and its tags, priority and limits."""

    # FastAPI silences a warning only while it builds a body's validator at once.
    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]}, defer_build=False)

    tags: dict[TagKey, Label] = Field(
        default_factory=dict, max_length=32, description="Labels of your own, to filter jobs by."
    )
    priority: int = Field(0, ge=-100, le=100, description="Jobs of higher priority run first.")
    time_limit_seconds: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Maximum running time over all attempts, not counting time in the queue or lost work; null: no "
        "limit.",
    )
    memory_limit_bytes: int | None = Field(
        None,
        ge=MIN_MEMORY_BYTES,
        le=2**50,
        description="Memory that the job may use beyond the training engine, which all jobs share; compare with "
        "`peak_bytes` of a summary. null: the worker's share for one job, which is also the maximum.",
        exclude_if=lambda limit: limit is None,  # so that idempotency keys stay valid across the upgrade that added it
    )
    max_failures: int = Field(
        3, ge=1, le=100, description="Number of lost workers or training processes after which the job fails."
    )

    @property
    def train_spec(self) -> TrainSpec:
        """The fields that determine the result, without those that affect only the scheduling of the job."""
        return TrainSpec.model_validate({name: getattr(self, name) for name in TrainSpec.model_fields})
