"""Answers of comparisons, shared with the SDK and therefore free of numpy. Numbers are in the unit of the metric."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from service.comparisons.styles import LookView
from service.specs.bodies import Output
from service.specs.states import ComparisonStatus
from service.specs.summary import Target

Interval = tuple[float, float]


class GroupView(Output):
    """Statistics of the runs of one group (in a comparison, an optimizer), one run per seed."""

    label: str
    value: Any = Field(description="Value of the grouped field.")
    optimizer: dict[str, Any]
    n: int = Field(description="Number of seeds whose run finished, or diverged with a declared score.")
    mean: float | None
    sd: float | None = Field(description="Standard deviation over seeds (ddof 1).")
    interval: Interval | None = Field(description="95 % t interval of the mean.")
    best: float | None = Field(description="The best single run: highest accuracy, lowest loss.")
    iqm: float | None = Field(description="Interquartile mean of the runs, with at least 20 runs.")
    iqm_interval: Interval | None = Field(description="95 % percentile bootstrap interval of the interquartile mean.")
    iqm_cannot_say: str | None
    steps_to_target: float | None = Field(description="Median over seeds; null if half or more missed the target.")
    seconds_to_target: float | None
    diverged: int = Field(
        description="Seeds whose run diverged. They miss every target, and enter the mean only with the score that the "
        "plan declares for them (`diverged_score`)."
    )
    jobs: list[UUID]
    diverged_jobs: list[UUID] = Field(description="Jobs that diverged.")
    cannot_say: str | None = Field(description="Why a statistic is null.")


class PairDetail(Output):
    """Further statistics of a pair, besides its primary test."""

    sd: float | None = Field(description="Standard deviation of the paired differences (ddof 1).")
    correlation: float | None = Field(
        description="Correlation of a and b over seeds; the higher it is, the more precise is the paired difference."
    )
    skewed: bool | None = Field(
        description="Whether the differences are too skewed for a t test; null if there are too few to tell."
    )
    p_permutation: float | None = Field(
        description="p value of the sign-flip permutation test, if the differences are skewed."
    )
    p_wilcoxon: float | None = Field(
        description="p value of Wilcoxon's signed-rank test, with at least 6 seeds on which the two differ."
    )
    cliffs_delta: float | None = Field(description="P(a > b) - P(a < b) over all runs, from -1 to 1.")
    cannot_say: str | None = Field(description="Why a statistic is null.")
    permutation_cannot_say: str | None
    wilcoxon_cannot_say: str | None


class PairView(Output):
    """Two groups on the seeds that both have: the mean difference a - b and its paired test."""

    a: str
    b: str
    n: int = Field(
        description="Seeds that both groups have; with planned looks, up to the last complete or the deciding look."
    )
    difference: float | None
    interval: Interval | None = Field(
        description="95 % interval of the difference. Fixed seeds: t interval of this pair; `any`: always-valid "
        "interval of this pair; planned looks: repeated interval, which holds for all pairs and looks at once."
    )
    p: float | None = Field(description="p of this pair alone; `any`: always-valid p; planned looks: repeated p.")
    p_adjusted: float | None = Field(
        description="p value adjusted for all pairs tested together: by Holm's method, or multiplied by their number."
    )
    significant: bool = Field(description="Whether the difference is significant at a family-wise error rate of 5 %.")
    seeds_needed: int | None = Field(
        description="Estimated number of seeds per group, including those already run, needed to detect the observed "
        "difference with a power of 80 %; null if it is significant or cannot be estimated."
    )
    detail: PairDetail
    cannot_say: str | None = Field(description="Why a statistic is null.")


class VerdictView(Output):
    """Whether one group is best (the only one that no other group beats significantly), and the result in words."""

    decided: bool
    best: str | None
    text: str


class LeftOut(Output):
    """Matching jobs that are in no group, by reason."""

    unfinished: int = Field(description="Queued or running.")
    failed: int = Field(
        description="Failed for a reason other than divergence; such failures say nothing about the optimizer."
    )
    cancelled: int
    without_metric: int = Field(
        description="Finished without the metric; tuning jobs, for example, have no test metrics."
    )
    repeated: int = Field(description="Earlier runs of a seed that was repeated.")


class CompareAnswer(Output):
    """Which group is better, by how much, and with what certainty."""

    dataset: str
    model: str | None = Field(description="Null if models are compared.")
    metric: str
    group_by: str
    target: Target | None = Field(
        description="Target to which `steps_to_target` and `seconds_to_target` refer; null without one, or if jobs "
        "have different ones."
    )
    held_fixed: dict[str, Any] = Field(
        description="Settings that all runs share; parameters of the optimizer under their bare names."
    )
    groups: list[GroupView] = Field(description="Best mean first.")
    pairs: list[PairView]
    verdict: VerdictView
    left_out: LeftOut


# --- comparisons -----------------------------------------------------------------------------------------------------


class TrialView(Output):
    """A point of the search space and its score on validation data."""

    trial: int
    params: dict[str, Any] = Field(description="The tuned hyperparameters.")
    rung: int = Field(description="Last stage of successive halving that it reached, from 0; 0 without halving.")
    budget: dict[str, Any]
    score: float | None = Field(
        description="Mean of the validation metric over the tuning seeds; null while it runs or without a result."
    )
    status: Literal["waiting", "finished", "diverged", "failed"]
    seconds: float | None = Field(description="Training time of all its runs at that stage.")
    jobs: list[UUID]


class GoodRange(Output):
    """Range of learning rates whose score is within `tolerance` of the best trial's."""

    low: float | None
    high: float | None
    decades: float | None
    open_low: bool = Field(description="Whether the range may extend below the lowest value tried.")
    open_high: bool
    tolerance: float
    cannot_say: str | None


class TuningView(Output):
    """How an optimizer's hyperparameters were chosen on a task."""

    label: str
    metric: str = Field(description="On validation data; the test set is never read.")
    trials: list[TrialView]
    chosen: int | None
    params: dict[str, Any] | None = Field(description="The tuned hyperparameters of the chosen trial.")
    at_edge: list[str] = Field(description="Tuned hyperparameters whose chosen value is the lowest or highest tried.")
    expected_best: list[float] = Field(description="Expected best score after 1, 2, ... trials in random order.")
    good_range: GoodRange | None
    seconds: float = Field(description="Training time of all trials.")


class CostView(Output):
    """Time and memory of one run; medians over the runs of a group."""

    label: str
    train_seconds: float | None
    milliseconds_per_step: float | None
    ratio: float | None = Field(description="Time of a step relative to that of the fastest optimizer of the task.")
    peak_bytes: float | None = Field(
        description="Peak memory of the run; on a CPU, the growth of the process's memory since the start of the run."
    )
    optimizer_state_bytes: float | None
    parameters: int | None
    shared: bool = Field(
        description="Whether other jobs may have run on the same devices at the same time, because the worker has more "
        "slots than GPUs, so that times are approximate."
    )


class ToTarget(Output):
    """When a group reached the task's target; a miss counts as later than any hit."""

    label: str
    runs: int
    reached: int
    steps: float | None = Field(description="Median; null if half or more of the runs missed it.")
    seconds: float | None


class FirstToTarget(Output):
    """Which of two groups reached the target first, by seed; a miss counts as later than any hit."""

    a: str
    b: str
    n: int = Field(description="Seeds that both groups have.")
    a_first: int
    b_first: int
    ties: int = Field(description="Seeds on which both took the same number of steps, or both missed.")
    p: float | None = Field(description="p value of the exact sign test of this pair alone.")
    cannot_say: str | None


class MissingRun(Output):
    """A planned run that is not in the statistics, and why."""

    label: str
    phase: str
    seed: int
    job: UUID
    why: str


class TaskAnswer(CompareAnswer):
    """One task of a comparison."""

    label: str
    tuning: list[TuningView]
    cost: list[CostView]
    to_target: list[ToTarget]
    first_to_target: list[FirstToTarget]
    missing: list[MissingRun]


class Rank(Output):
    """An optimizer over all tasks."""

    label: str
    mean_rank: float | None = Field(description="Mean over tasks of the rank by mean score; 1 is best.")
    iqm: float | None = Field(description="Interquartile mean of the runs' scores over all tasks.")
    iqm_interval: Interval | None
    iqm_cannot_say: str | None
    algoperf: float | None = Field(
        description="AlgoPerf's score of the times to target; depends on the set of optimizers."
    )


class Improvement(Output):
    """Probability that a run of a is better than a run of b, averaged over tasks."""

    a: str
    b: str
    probability: float | None
    interval: Interval | None
    cannot_say: str | None


class ProfileView(Output):
    """Share of tasks on which the time to the target was at most r times the fastest, for each r in `ratios`."""

    label: str
    ratios: list[float]
    shares: list[float]


class AcrossTasks(Output):
    """Analysis of all tasks together."""

    tasks: int
    ranks: list[Rank]
    improvements: list[Improvement]
    profiles: list[ProfileView]
    friedman_p: float | None
    critical_difference: float | None = Field(
        description="Nemenyi's critical difference of mean ranks, with at least 8 tasks."
    )
    sentences: list[str]
    cannot_say: list[str] = Field(description="Statistics that are missing, and why.")


class Assumption(Output):
    """An assumption of the verdict, and whether it holds; `holds` is null if not checked, or too early to tell."""

    name: str
    holds: bool | None
    text: str


class ComparisonProgress(Output):
    """Progress of a comparison."""

    phase: Literal["tuning", "reporting", "finished"]
    jobs: int = Field(description="Runs requested so far.")
    jobs_at_most: int = Field(description="Runs if every look is needed.")
    queued: int
    running: int
    succeeded: int
    diverged: int
    failed: int
    cancelled: int
    reused: int = Field(description="Runs that existed before the comparison.")
    seconds_used: float = Field(description="Device time of its own runs.")
    seconds_left: float | None = Field(
        description="Upper bound of the estimated remaining device time; null if no similar run exists."
    )


class PlanView(Output):
    """The runs of a comparison and their tests, fixed before its first job."""

    name: str
    metric: str
    tasks: list[dict[str, Any]]
    optimizers: list[dict[str, Any]]
    seeds: list[int]
    looks: list[int]
    nominal_p: list[float] = Field(description="p threshold of each look; empty without planned looks.")
    pairs: int = Field(description="Pairs of optimizers over all tasks: the family whose error rate is 5 %.")
    tuning: dict[str, Any] | None
    rungs: list[dict[str, Any]]
    vary: list[str]
    warnings: list[str] = Field([], description="What is valid, but probably not intended; in sentences.")


class Estimate(Output):
    """Estimated duration of a run of an optimizer on a task, from earlier runs."""

    task: str
    optimizer: str
    seconds: float | None = Field(
        description="Duration of one run with the whole budget; null if no similar run exists."
    )
    runs: int = Field(description="Number of earlier runs that the estimate is based on.")


class ComparisonDryRun(Output):
    """The plan of a comparison, without running anything."""

    plan: PlanView
    methods: str = Field(description="Methods paragraph for your paper.")
    jobs_at_least: int = Field(description="Runs if the first look decides.")
    jobs_at_most: int
    reused: int = Field(
        description="Number of runs of the first stage that exist already. The first stage is the tuning trials or, "
        "without tuning, the runs up to the first look."
    )
    seconds_at_most: float | None = Field(description="Estimated device time of all runs; null without similar runs.")
    estimates: list[Estimate]


class ReusedRun(Output):
    """A run that existed before the comparison, and its user."""

    job: UUID
    label: str
    task: str
    seed: int
    user: str


class ComparisonSummary(Output):
    """A comparison in a list."""

    id: UUID
    name: str
    user: str
    status: ComparisonStatus
    message: str | None = None
    created_at: datetime
    finished_at: datetime | None
    tags: dict[str, str] = Field(default_factory=dict)
    note: str | None = None
    archived_at: datetime | None = None


class ComparisonAnswer(ComparisonSummary):
    """Which optimizer is better on each task and over all tasks, by how much, and with what certainty."""

    verdict: list[str] = Field(description="The result in sentences.")
    progress: ComparisonProgress
    tasks: list[TaskAnswer]
    across: AcrossTasks | None = Field(
        description="Null with one task, before all runs have ended, and if runs are missing."
    )
    assumptions: list[Assumption]
    methods: str = Field(description="Methods paragraph for your paper.")
    reused: list[ReusedRun]
    plan: PlanView
    estimates: list[Estimate] = Field(description="Empty once the comparison has ended.")
    looks: dict[str, LookView] = Field(description="Plot style of each optimizer, by label; not the planned looks.")
