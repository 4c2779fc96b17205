"""What a comparison answers; shared with the SDK, so without numpy. Numbers are in the unit of the metric."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import Field

from service.schemas import Output
from service.spec import Target

Interval = tuple[float, float]


class GroupView(Output):
    """The runs of one choice, one run a seed; statistics are over those that finished."""

    label: str
    value: Any = Field(description="What all runs of the group have in the grouped field.")
    optimizer: dict[str, Any]
    n: int = Field(description="Seeds with a finished run.")
    mean: float | None
    sd: float | None = Field(description="Standard deviation over seeds (ddof 1).")
    interval: Interval | None = Field(description="95 % t interval of the mean.")
    best: float | None = Field(description="The best single run: highest accuracy, lowest loss.")
    steps_to_target: float | None = Field(description="Median over seeds; null where half or more missed the target.")
    seconds_to_target: float | None
    diverged: int = Field(description="Seeds whose run diverged; they are not in the mean and miss every target.")
    jobs: list[UUID]
    cannot_say: str | None = Field(description="Why a statistic is null.")


class PairView(Output):
    """Two groups on the seeds that finished in both: the mean difference a - b and its paired t test."""

    a: str
    b: str
    n: int = Field(description="Seeds that both groups have.")
    difference: float | None
    interval: Interval | None = Field(description="95 % t interval of the difference, of this pair alone.")
    p: float | None
    p_adjusted: float | None = Field(description="After Holm, over all pairs that could be tested.")
    cannot_say: str | None = Field(description="Why a statistic is null.")


class VerdictView(Output):
    """Whether one group is better than every other, and what is known, in plain words."""

    decided: bool
    best: str | None
    text: str


class LeftOut(Output):
    """Matching jobs that are not in the groups, by why."""

    unfinished: int = Field(description="Queued or running.")
    failed: int = Field(description="Failed other than by diverging: that says nothing about the optimizer.")
    cancelled: int
    without_metric: int = Field(description="Finished, but the metric is not theirs: tuning jobs have no test metrics.")
    repeated: int = Field(description="Older runs of a seed that ran again.")


class CompareAnswer(Output):
    """Which group is better, by how much, and how sure one can be."""

    dataset: str
    model: str | None = Field(description="Null where models are compared.")
    metric: str
    group_by: str
    target: Target | None = Field(description="What steps and seconds to target mean; null: nothing, or not the same.")
    held_fixed: dict[str, Any] = Field(description="What all runs share; parameters of the optimizer by bare name.")
    groups: list[GroupView] = Field(description="Best mean first.")
    pairs: list[PairView]
    verdict: VerdictView
    left_out: LeftOut
